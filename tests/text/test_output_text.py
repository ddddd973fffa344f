"""OutputText: detokenizer, stop strings, min_tokens and the last token, together."""

import pytest

from wheelpit.request import SamplingParams
from wheelpit.text.output_text import OutputText


def stream(tokenizer, text, *, by_token=True, ends_with_stop_token=False, **params):
    """Return (visible text, match) of the tokens of `text`, one at a time or all at once."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    output = OutputText(tokenizer, SamplingParams(max_tokens=None, **params))
    batches = [[token_id] for token_id in ids] if by_token else [ids]
    seen = ""
    for index, batch in enumerate(batches):
        is_final = index == len(batches) - 1
        visible, matched = output.append(
            batch, is_final, ends_with_stop_token=is_final and ends_with_stop_token
        )
        seen += visible
        if matched:
            return seen, matched
    return seen, None


@pytest.mark.parametrize("by_token", [True, False])
def test_text_comes_out_whole(byte_level, by_token):
    assert stream(byte_level, "schöne 🙃 Grüße", by_token=by_token) == ("schöne 🙃 Grüße", None)


@pytest.mark.parametrize("by_token", [True, False])
def test_a_stop_string_cuts_the_text(byte_level, by_token):
    text = "Hello there\nUser: what"
    assert stream(byte_level, text, by_token=by_token, stop="\nUser:") == ("Hello there", "\nUser:")


@pytest.mark.parametrize("by_token", [True, False])
def test_stop_strings_count_only_beyond_min_tokens(byte_level, by_token):
    text = "a.b.c.d"
    num = len(byte_level.encode("a.b.", add_special_tokens=False))
    got = stream(byte_level, text, by_token=by_token, stop=".", min_tokens=num)
    assert got == ("a.b.c", ".")


def test_the_stop_token_is_left_out_unless_wanted(byte_level):
    text = "done<|im_end|>"
    options = {"ends_with_stop_token": True, "skip_special_tokens": False}
    assert stream(byte_level, text, **options) == ("done", None)
    assert stream(byte_level, text, include_stop_str_in_output=True, **options) == (text, None)


def test_pending_bytes_and_held_text_are_released_at_the_end(byte_level):
    ids = byte_level.encode("abc 🙃", add_special_tokens=False)[:-1]
    output = OutputText(byte_level, SamplingParams(stop="long stop string"))
    assert output.append(ids) == ("", None)
    assert output.append([], is_final=True) == ("abc \ufffd", None)


@pytest.mark.parametrize("detokenize", [True, False])
def test_without_tokenizer_or_detokenize_there_is_no_text(byte_level, detokenize):
    tokenizer = None if detokenize else byte_level
    output = OutputText(tokenizer, SamplingParams(detokenize=detokenize))
    assert output.append([5, 6], is_final=True) == ("", None)
