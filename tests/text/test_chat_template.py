"""Chat templates: sandboxed, strict about messages, and clear when something is wrong."""

import json
import sys

import pytest

from wheelpit.errors import ModelLoadError, ValidationError
from wheelpit.text.chat_template import ChatTemplate
from wheelpit.text.tokenizer import Tokenizer

SIMPLE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
USER = [{"role": "user", "content": "hi"}]


def simple() -> ChatTemplate:
    return ChatTemplate(SIMPLE, {"bos_token": "<s>", "eos_token": "</s>"})


def test_a_conversation_is_rendered_with_the_special_tokens():
    assert simple().render(USER) == "<s>[user]hi</s>[assistant]"
    assert simple().render(USER, add_generation_prompt=False) == "<s>[user]hi</s>"


def test_text_parts_become_one_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert simple().render([{"role": "user", "content": parts}]) == "<s>[user]a\nb</s>[assistant]"


def test_an_assistant_message_may_have_no_content():
    messages = [*USER, {"role": "assistant", "content": None, "tool_calls": []}]
    assert simple().render(messages, add_generation_prompt=False).endswith("[assistant]</s>")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty"),
        (["hi"], r"messages\[0\] must be an object, got str"),
        ([{"content": "hi"}], r"messages\[0\] needs a role"),
        ([{"role": 5, "content": "hi"}], r"messages\[0\] needs a role"),
        ([*USER, {"role": "user"}], r"messages\[1\] needs content .*got NoneType"),
        ([{"role": "user", "content": 5}], "needs content .*got int"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "type 'image_url': only 'text' is supported",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "text part without text"),
        ([{"role": "user", "content": [5]}], "part of type 'int'"),
    ],
)
def test_bad_messages_are_refused_by_number(messages, message):
    with pytest.raises(ValidationError, match=message):
        simple().render(messages)


def test_a_template_can_refuse_a_conversation():
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValidationError, match="chat template: roles must alternate"):
        template.render(USER)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", "does not compile: line 1"),
        ("{{ messages[0].content.foo.bar }}", "has no attribute 'foo'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[0].update({'a': 1}) }}", "update"),
        ("{% include 'x' %}", "chat template"),
    ],
)
def test_a_broken_or_hostile_template_is_the_requests_fault(source, message):
    with pytest.raises(ValidationError, match=message):
        ChatTemplate(source).render(USER)


def test_a_template_can_be_checked_before_it_is_used():
    simple().check()
    with pytest.raises(ValidationError, match="does not compile: line 1"):
        ChatTemplate("{% for %}").check()


def test_the_callers_messages_stay_as_they_are():
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    before = json.dumps(messages)
    simple().render(messages)
    assert json.dumps(messages) == before


def test_tools_are_given_as_plain_json():
    template = ChatTemplate("{{ tools | tojson }}{{ tools | tojson(indent=1) | length }}")
    tools = [{"name": "<é & 'b'>"}]
    assert template.render(USER, tools=tools).startswith("""[{"name": "<é & 'b'>"}]""")


def test_blocks_are_trimmed_and_loops_have_break_and_a_clock():
    source = (
        "{% for i in range(9) %}\n  {% if i == 2 %}{% break %}{% endif %}\n{{ i }}\n{% endfor %}\n"
        "{{ strftime_now('%Y') | length }}"
    )
    assert ChatTemplate(source).render(USER) == "0\n1\n4"


def test_own_variables_reach_the_template_but_do_not_replace_the_conversation():
    template = ChatTemplate("{{ enable_thinking }} {{ messages | length }}")
    assert template.render(USER, enable_thinking=False, messages=5) == "False 1"


def test_the_final_message_can_be_continued():
    messages = [*USER, {"role": "assistant", "content": "The answer is "}]
    text = simple().render(messages, add_generation_prompt=False, continue_final_message=True)
    assert text == "<s>[user]hi</s>[assistant]The answer is "


def test_continuing_and_prompting_exclude_each_other():
    with pytest.raises(ValidationError, match="exclude each other"):
        simple().render(USER, add_generation_prompt=True, continue_final_message=True)


def test_continuing_needs_content_that_is_rendered():
    messages = [*USER, {"role": "assistant", "content": ""}]
    with pytest.raises(ValidationError, match="needs a last message with content"):
        simple().render(messages, add_generation_prompt=False, continue_final_message=True)


# --- where templates come from


def test_no_template_says_where_it_looked_and_the_way_out(folder):
    (folder / "tokenizer_config.json").write_text("{}")
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.chat_template is None
    with pytest.raises(
        ValidationError, match=r"has no chat template .*--chat-template FILE"
    ) as got:
        tokenizer.apply_chat_template(USER)
    assert str(folder) in str(got.value)


def test_a_jinja_file_wins_over_the_config(folder):
    (folder / "chat_template.jinja").write_text("file: {{ messages[0].content }}")
    assert Tokenizer.from_folder(folder).apply_chat_template(USER, tokenize=False) == "file: hi"


def test_named_templates_are_found_and_tools_choose_theirs(folder):
    config = {
        "chat_template": [
            {"name": "default", "template": "plain"},
            {"name": "tool_use", "template": "tools {{ tools | length }}"},
        ]
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.chat_template == "plain"
    assert tokenizer.apply_chat_template(USER, tokenize=False) == "plain"
    assert tokenizer.apply_chat_template(USER, tokenize=False, tools=[{}]) == "tools 1"


def test_a_template_file_that_is_not_text_is_named(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ModelLoadError, match=r"chat_template\.jinja"):
        Tokenizer.from_folder(folder)


def test_templates_agree_with_transformers(folder):
    """The same folder in transformers' tokenizer gives the same prompts."""
    transformers = pytest.importorskip("transformers")
    source = (
        "{%- if messages[0]['role'] == 'system' -%}\n    {{- messages[0]['content'] + '\\n' }}\n"
        "{%- endif %}\n{% for message in messages %}\n    {% if loop.last %}\n"
        "last: {{ message.content | trim }}\n    {% endif %}\n{% endfor %}"
        "{{ tools | tojson }} {% if add_generation_prompt %}\n>>{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(source)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    ours = Tokenizer.from_folder(folder)
    messages = [{"role": "system", "content": "be <nice>"}, {"role": "user", "content": " hé "}]
    for options in (
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    ):
        expected = theirs.apply_chat_template(messages, tokenize=False, **options)
        assert ours.apply_chat_template(messages, tokenize=False, **options) == expected


def test_jinja2_is_not_imported_before_it_is_needed():
    import subprocess

    code = "import sys, wheelpit.text.tokenizer; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
