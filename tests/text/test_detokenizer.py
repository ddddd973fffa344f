"""Increments of text add up to the text of all ids, and are never taken back."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wheelpit.text.detokenizer import IncrementalDetokenizer
from wheelpit.text.tokenizer import Tokenizer

TEXTS = [
    "Hello, world!",
    "schöne Grüße aus München",
    "日本語のテキスト と 中文",
    "🙂🙃 👩‍👩‍👧 flags 🇩🇪",
    "  two  spaces\n\n\tand tabs ",
    "é combining e\u0301",
    "\ufffd a real replacement character",
]


def pieces(tokenizer: Tokenizer, ids, prompt=(), size=1, **options) -> list[str]:
    stream = IncrementalDetokenizer(tokenizer, prompt, **options)
    parts = [stream.append(ids[start : start + size]) for start in range(0, len(ids), size)]
    return [*parts, stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_increments_of_real_text_add_up_to_it(request, kind, text):
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode(text)
    parts = pieces(tokenizer, ids)
    assert "".join(parts) == tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_no_part_of_a_character_comes_out(request, kind):
    tokenizer = request.getfixturevalue(kind)
    for text in TEXTS[:-1]:
        assert not any("\ufffd" in part for part in pieces(tokenizer, tokenizer.encode(text)))


@given(data=st.data(), skip=st.booleans(), size=st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_byte_level_increments_of_random_ids_add_up(byte_level, data, skip, size):
    some_id = st.integers(0, byte_level.max_token_id + 3)
    ids = data.draw(st.lists(some_id, max_size=60))
    parts = pieces(byte_level, ids, size=size, skip_special_tokens=skip)
    assert "".join(parts) == byte_level.decode(ids, skip_special_tokens=skip)


@given(data=st.data(), skip=st.booleans(), size=st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_sentencepiece_increments_of_random_ids_add_up(sentencepiece, data, skip, size):
    """Random ids, with byte tokens in runs that are valid UTF-8 (see the module's docstring).

    U+FFFD spelled in bytes is left out: it cannot be told from a character that is not complete.
    """
    vocabulary = sentencepiece.get_vocab()
    plain = [[token_id] for token, token_id in vocabulary.items() if not token.startswith("<0x")]
    # Not st.characters(): it first tabulates all of Unicode, seconds in a fresh checkout.
    code_points = st.integers(0, 0x10FFFF).filter(lambda code: not 0xD800 <= code <= 0xDFFF)
    spelled = code_points.filter(lambda code: code != 0xFFFD).map(
        lambda code: [vocabulary[f"<0x{byte:02X}>"] for byte in chr(code).encode()]
    )
    runs = data.draw(st.lists(st.one_of(st.sampled_from(plain), spelled), max_size=30))
    ids = [token_id for run in runs for token_id in run]
    parts = pieces(sentencepiece, ids, size=size, skip_special_tokens=skip)
    assert "".join(parts) == sentencepiece.decode(ids, skip_special_tokens=skip)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_ids_at_all_are_survived(sentencepiece, wordpiece, data):
    for tokenizer in (sentencepiece, wordpiece):
        ids = data.draw(st.lists(st.integers(0, tokenizer.max_token_id + 5), max_size=40))
        for options in ({}, {"skip_special_tokens": False, "spaces_between_special_tokens": False}):
            "".join(pieces(tokenizer, ids, prompt=ids[:10], **options))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_wordpiece_increments_add_up(wordpiece, data):
    ids = data.draw(st.lists(st.integers(0, wordpiece.max_token_id), max_size=40))
    assert "".join(pieces(wordpiece, ids)) == wordpiece.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@given(prompt=st.sampled_from(TEXTS), text=st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_text_after_a_prompt_keeps_its_leading_space(request, kind, prompt, text):
    """The prompt's own text must not come out, nor the space at the seam get lost."""
    tokenizer = request.getfixturevalue(kind)
    prompt_ids = tokenizer.encode(prompt)
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(prompt_ids + ids)
    assert prompt + "".join(pieces(tokenizer, ids, prompt=prompt_ids)) == whole


def test_a_character_begun_in_the_prompt_is_completed(byte_level):
    ids = byte_level.encode("🙃", add_special_tokens=False)
    assert len(ids) > 1
    assert "".join(pieces(byte_level, ids[-1:], prompt=ids[:-1])) == "🙃"


@pytest.mark.parametrize("bad", [[-1], [2**70], ["x"], [None], [1.5]])
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_impossible_ids_have_no_text_and_do_not_raise(request, kind, bad, caplog):
    tokenizer = request.getfixturevalue(kind)
    stream = IncrementalDetokenizer(tokenizer)
    with caplog.at_level(logging.WARNING):
        assert stream.append(bad) == ""
    ids = tokenizer.encode("fine again", add_special_tokens=False)
    assert (stream.append(ids) + stream.finish()).strip() == "fine again"


def test_an_unfinished_character_comes_out_at_the_end(byte_level):
    ids = byte_level.encode("🙃", add_special_tokens=False)[:-1]
    stream = IncrementalDetokenizer(byte_level)
    assert stream.append(ids) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


def test_endless_invalid_bytes_do_not_grow_the_window(sentencepiece):
    """A model can emit invalid bytes for ever; each must still cost the same."""
    stream = IncrementalDetokenizer(sentencepiece)
    bad = sentencepiece.convert_tokens_to_ids("<0xFF>")
    text = "".join(stream.append([bad]) for _ in range(1000))
    assert set(text) == {"\ufffd"}
    assert len(stream._way._window) < 20


def test_special_tokens_stand_together_if_asked(wordpiece):
    ids = [wordpiece.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]", "The", "[SEP]")]
    joined = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
    assert "".join(pieces(wordpiece, ids, skip_special_tokens=False)) == "[CLS] [SEP] The [SEP]"
    assert "".join(pieces(wordpiece, ids, **joined)).startswith("[CLS][SEP] The")
    assert wordpiece.decode(ids, **joined).startswith("[CLS][SEP]")
