"""Tokenizer: what callers of a Hugging Face tokenizer expect, and errors that name the file."""

import asyncio
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.small_tokenizers import byte_level_backend, sentencepiece_backend
from wheelpit.errors import ModelLoadError, ValidationError
from wheelpit.text.tokenizer import INLINE_CHARS, Tokenizer
from wheelpit.text.tokenizer_files import TokenizerSettings


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_byte_level_text_round_trips(byte_level, text):
    if not any(token in text for token in byte_level.added_tokens.values()):
        assert byte_level.decode(byte_level.encode(text)) == text


@given(text=st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_string_is_encoded_or_refused(byte_level, text):
    try:
        byte_level.encode(text)
    except ValidationError:
        assert any("\ud800" <= char <= "\udfff" for char in text)


def test_a_lone_surrogate_is_refused_with_its_place(byte_level):
    with pytest.raises(ValidationError, match=r"character 2 is the lone surrogate U\+D800"):
        byte_level.encode("ab\ud800")


@pytest.mark.parametrize("value", [None, 5, b"x", ["a"]])
def test_what_is_not_text_is_refused(byte_level, value):
    with pytest.raises(ValidationError, match="text must be a string"):
        byte_level.encode(value)


@pytest.mark.parametrize("ids", [[-1], [2**70], ["a"], [1.5]])
def test_impossible_ids_are_refused(byte_level, ids):
    with pytest.raises(ValidationError, match="non-negative integers"):
        byte_level.decode(ids)


def test_sizes_and_names(byte_level):
    vocabulary = byte_level.get_vocab()
    assert len(byte_level) == byte_level.vocab_size == len(vocabulary)
    assert byte_level.max_token_id == max(vocabulary.values())
    assert byte_level.eos_token == "<|im_end|>"
    assert byte_level.eos_token_id == vocabulary["<|im_end|>"]
    assert byte_level.bos_token_id is None
    assert byte_level.eos_token_id in byte_level.special_ids
    assert vocabulary["<tool call>"] not in byte_level.special_ids
    assert byte_level.convert_ids_to_tokens([0, 10**9]) == ["<|endoftext|>", None]
    assert byte_level.convert_tokens_to_ids("<|endoftext|>") == 0
    assert byte_level.convert_tokens_to_ids(["<|endoftext|>", "nope"]) == [0, None]


def test_special_tokens_are_skipped_or_shown(byte_level):
    ids = byte_level.encode("<|im_start|>hi<|im_end|>")
    assert byte_level.decode(ids) == "hi"
    assert byte_level.decode(ids, skip_special_tokens=False) == "<|im_start|>hi<|im_end|>"
    assert byte_level.decode(ids[0]) == ""


def test_token_bytes_add_up_to_the_text(byte_level, sentencepiece):
    text = "Grüße 🙃 日本語"
    for tokenizer in (byte_level, sentencepiece):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(map(tokenizer.token_bytes, ids)).decode().strip() == text
        assert tokenizer.token_bytes(10**9) == b""


def test_token_text_shows_part_of_a_character_as_replacement(byte_level):
    ids = byte_level.encode("🙃", add_special_tokens=False)
    assert "\ufffd" in byte_level.token_to_text(ids[0])
    assert byte_level.token_to_text(byte_level.eos_token_id) == "<|im_end|>"


def test_bos_is_added_where_the_config_wants_it():
    """tokenizer.json may add it by itself, or not; add_bos_token decides either way."""

    def first(backend, token, wanted):
        settings = TokenizerSettings(named_tokens={"bos_token": token}, add_bos_token=wanted)
        tokenizer = Tokenizer(backend, settings)
        return tokenizer.encode("hi").count(tokenizer.bos_token_id)

    assert [first(sentencepiece_backend(), "<s>", wanted) for wanted in (None, True, False)] == [
        1,
        1,
        0,
    ]
    assert [
        first(byte_level_backend(), "<|im_start|>", wanted) for wanted in (None, True, False)
    ] == [0, 1, 0]


def test_eos_is_added_where_the_config_wants_it():
    settings = TokenizerSettings(named_tokens={"eos_token": "<|im_end|>"}, add_eos_token=True)
    tokenizer = Tokenizer(byte_level_backend(), settings)
    assert tokenizer.encode("hi")[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in tokenizer.encode("hi", add_special_tokens=False)


def test_truncation_and_padding_of_the_file_are_switched_off(folder):
    """Tokenizer files often carry the training run's truncation to 512 tokens."""
    backend = byte_level_backend()
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    backend.save(str(folder / "tokenizer.json"))
    assert len(Tokenizer.from_folder(folder).encode("one two three four five six")) > 8
    assert len(Tokenizer.from_folder(folder).encode("a")) == 1


def test_tokens_known_only_to_the_config_are_added(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    size = Tokenizer.from_folder(folder).vocab_size
    config["added_tokens_decoder"] = {str(size): {"content": "<|extra|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.convert_tokens_to_ids("<|extra|>") == size
    assert size in tokenizer.special_ids
    assert tokenizer.decode(tokenizer.encode("a<|extra|>b")) == "ab"


def test_named_tokens_may_be_objects_or_stand_in_the_map(folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|im_end|>"}})
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|im_start|>"}))
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_a_missing_file_is_named_with_the_way_out(tmp_path):
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json does not exist.*--tokenizer"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": 1}}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default"}]}'),
        ("tokenizer_config.json", '{"chat_template": 5}'),
        ("special_tokens_map.json", "\x00"),
    ],
)
def test_a_corrupt_file_is_named(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ModelLoadError, match=name):
        Tokenizer.from_folder(folder)


async def test_short_texts_are_encoded_inline_and_long_ones_in_a_thread(byte_level, monkeypatch):
    threads = []
    encode = byte_level.encode

    def spy(text, add_special_tokens=True):
        threads.append(threading.current_thread())
        return encode(text, add_special_tokens)

    monkeypatch.setattr(byte_level, "encode", spy)
    long = "word " * INLINE_CHARS
    assert await byte_level.encode_async("hi") == encode("hi")
    assert await byte_level.encode_async(long, add_special_tokens=False) == encode(long)
    assert threads[0] is threading.main_thread()
    assert threads[1].name.startswith("wheelpit-tokenizer")


async def test_the_loop_runs_on_while_a_long_text_is_encoded(byte_level):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await byte_level.encode_async("some words here " * 20_000)
    ticking.cancel()
    assert ticks > 3  # one, and then no other before the end, if it did not run on


async def test_invalid_text_is_refused_from_the_thread_too(byte_level):
    with pytest.raises(ValidationError, match="surrogate"):
        await byte_level.encode_async("\udfff" + "a" * INLINE_CHARS)


def test_apply_chat_template_gives_ids_or_text(byte_level):
    messages = [{"role": "user", "content": "hi"}]
    text = byte_level.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    ids = byte_level.apply_chat_template(messages)
    assert byte_level.decode(ids, skip_special_tokens=False) == text.removesuffix(
        "<|im_start|>assistant\n"
    )


def test_ids_and_texts_are_those_of_transformers(folder):
    """The same folder in transformers' tokenizer, special tokens in the text included."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    ours = Tokenizer.from_folder(folder)
    assert len(ours) == len(theirs)
    assert ours.special_ids == set(theirs.all_special_ids) | {0, 1}
    for text in ("Grüße 🙃", "<|im_start|>user\nhi<|im_end|>", " a  b\n\n", "<tool call>x", ""):
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
