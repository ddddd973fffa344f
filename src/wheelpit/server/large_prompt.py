"""Refuse a hopelessly long prompt before it is decoded, which would hold up everybody else.

Decoding cannot be interrupted, and in a thread it keeps Python's lock all the same: 10 MB of token
ids take 150 ms. To skip over a value takes a tenth of that.
"""

from __future__ import annotations

import re

import msgspec

from wheelpit.errors import ValidationError
from wheelpit.server.body import Body
from wheelpit.server.prompts import check_chars
from wheelpit.server.service import Service

LARGE_BYTES = 1 << 18
"""Shorter bodies are decoded at once: a millisecond."""

MAX_CHAR_BYTES = 12
r"""The longest way to write a character in JSON: \ud83d\ude00."""

COUNTED_BYTES = 1 << 16

FIRST_OF_IDS = re.compile(rb"\[\s*-?\d")


class _Outline(msgspec.Struct):
    """What tells how long the prompt of a completion is."""

    prompt: msgspec.Raw = msgspec.Raw(b"null")
    truncate_prompt_tokens: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Outline).decode


def check_large_prompt(body: Body, service: Service) -> None:
    """Raise ValidationError if a large body's prompt, one text or one list of ids, cannot fit.

    Says nothing of what is wrong with the body else, nor of prompts that are to be cut.
    """
    if len(body) <= LARGE_BYTES:
        return
    try:
        outline = _decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return
    prompt = memoryview(outline.prompt)
    if bytes(memoryview(outline.truncate_prompt_tokens)) != b"null":
        return
    if bytes(prompt[:1]) == b'"':
        check_chars(service, (len(prompt) - 2) // MAX_CHAR_BYTES, is_exact=False)
    elif FIRST_OF_IDS.match(bytes(prompt[:COUNTED_BYTES])):
        _check_ids(prompt, service.model.max_model_len)


def _check_ids(prompt: memoryview, limit: int) -> None:
    """Count the commas of a list of numbers until there are too many."""
    num_ids = 1
    for start in range(0, len(prompt), COUNTED_BYTES):
        num_ids += bytes(prompt[start : start + COUNTED_BYTES]).count(b",")
        if num_ids > limit:
            raise ValidationError(
                f"This model's maximum context length is {limit} tokens. However, your prompt has "
                f"at least {num_ids} tokens. Please reduce the length of the prompt.",
                parameter="input_tokens",
                value=num_ids,
            )
