"""Prompts that are hopelessly long are refused before anything is made of them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.server.conftest import RunningServer
from wheelpit.errors import ValidationError
from wheelpit.server.large_prompt import COUNTED_BYTES, LARGE_BYTES, check_large_prompt

LONG_TEXT = "word " * 100_000
LONG_IDS = [123] * 100_000


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (LONG_TEXT, "at least 41666 characters"),
        ("\N{GRINNING FACE}\n" * 50_000, "at least"),
        (LONG_IDS, "at least"),
    ],
)
def test_a_long_prompt_is_refused_before_it_is_decoded(
    server: RunningServer, prompt: Any, words: str
) -> None:
    """The decoder would have complained of the temperature."""
    response = server.complete(prompt=prompt, temperature="warm")
    assert response.status_code == 400
    error = response.json()["error"]
    assert "maximum context length is 256 tokens" in error["message"]
    assert words in error["message"]
    assert "reduce the length of the prompt" in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": LONG_IDS, "truncate_prompt_tokens": 8},
        {"prompt": LONG_TEXT[:1000], "truncate_prompt_tokens": 8, "user": "x" * LARGE_BYTES},
        {"prompt": "short", "user": "x" * LARGE_BYTES},
        {"prompt": [[5, 6], [7]], "user": "x" * LARGE_BYTES},
        {"prompt": ["a", "b"], "user": "x" * LARGE_BYTES},
    ],
)
def test_a_large_body_with_a_prompt_that_fits_is_served(
    server: RunningServer, fields: dict[str, Any]
) -> None:
    response = server.complete(**fields)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "' + b"x" * LARGE_BYTES,
        b'{"prompt": [' + b"[" * LARGE_BYTES,
        b'{"prompt": {"a": "' + b"x" * LARGE_BYTES + b'"}}',
        b'{"prompt": null, "user": "' + b"x" * LARGE_BYTES + b'"}',
        b"[1, " + b" " * LARGE_BYTES,
    ],
)
def test_what_is_no_prompt_is_left_to_the_decoder(server: RunningServer, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = server.client.post("/v1/completions", content=body, headers=headers)
    assert response.status_code == 400
    assert "at least" not in response.text


def service_of(max_model_len: int) -> Any:
    return SimpleNamespace(model=SimpleNamespace(max_model_len=max_model_len, max_token_chars=1))


@pytest.mark.parametrize("character", ["x", "\n", "世", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("is_ascii", [False, True])
def test_nothing_that_may_fit_is_refused_however_it_is_written(
    character: str, is_ascii: bool
) -> None:
    num_chars = LARGE_BYTES
    text = json.dumps({"prompt": character * num_chars}, ensure_ascii=is_ascii).encode()
    check_large_prompt(text, service_of(num_chars))


@pytest.mark.parametrize("num_ids", [COUNTED_BYTES, COUNTED_BYTES + 1, 3 * COUNTED_BYTES])
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\n\t ", " : ")])
def test_ids_are_counted_exactly_up_to_the_limit(num_ids: int, separators: tuple[str, str]) -> None:
    body = json.dumps({"prompt": [1234] * num_ids}, separators=separators).encode()
    assert len(body) > LARGE_BYTES
    check_large_prompt(body, service_of(num_ids))
    with pytest.raises(ValidationError, match=f"at least {num_ids} tokens"):
        check_large_prompt(body, service_of(num_ids - 1))
