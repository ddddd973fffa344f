"""POST /v1/completions, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import RunningServer
from tests.server.sse_reader import events_of, text_of


def test_a_whole_answer_has_every_field(server: RunningServer) -> None:
    answer = server.complete(max_tokens=5).json()
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert isinstance(choice["text"], str)
    names = ("stop_reason", "logprobs", "token_ids", "prompt_logprobs", "prompt_token_ids")
    assert all(choice[name] is None for name in names)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["usage"]["prompt_tokens"] == 5


def test_max_tokens_defaults_to_16_also_when_null(server: RunningServer) -> None:
    assert server.complete(max_tokens=None).json()["usage"]["completion_tokens"] == 16
    answer = server.post("/v1/completions", {"prompt": "hello", "model": "tiny"}).json()
    assert answer["usage"]["completion_tokens"] == 16


def test_a_stream_tells_the_same_as_a_whole_answer(server: RunningServer) -> None:
    whole = server.complete(max_tokens=40).json()
    events = events_of(server.complete(max_tokens=40, stream=True))
    assert text_of(events) == whole["choices"][0]["text"]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["object"] == "text_completion"


@pytest.mark.parametrize(
    "prompt",
    [["hello", "you"], [[107, 104, 111], [100]], ["only"], [[1, 5]]],
)
def test_several_prompts_make_several_choices(server: RunningServer, prompt: Any) -> None:
    whole = server.complete(prompt=prompt, n=2, temperature=1, seed=5, max_tokens=9).json()
    assert [choice["index"] for choice in whole["choices"]] == list(range(2 * len(prompt)))
    assert whole["usage"]["completion_tokens"] == 18 * len(prompt)
    assert whole["usage"]["prompt_tokens"] == sum(map(len, prompt))
    body = {"n": 2, "temperature": 1, "seed": 5, "max_tokens": 9, "stream": True}
    events = events_of(server.complete(prompt=prompt, **body))
    for choice in whole["choices"]:
        assert text_of(events, choice["index"]) == choice["text"]


def test_token_ids_are_a_prompt(server: RunningServer) -> None:
    text = server.complete(prompt="hello").json()["choices"][0]["text"]
    ids = server.post("/tokenize", {"prompt": "hello"}).json()["tokens"]
    assert server.complete(prompt=ids).json()["choices"][0]["text"] == text


@pytest.mark.parametrize("as_ids", [False, True])
def test_echo_puts_the_prompt_before_the_text(server: RunningServer, as_ids: bool) -> None:
    prompt: Any = "hello"
    if as_ids:
        prompt = server.post("/tokenize", {"prompt": "hello"}).json()["tokens"]
    plain = server.complete(prompt=prompt).json()["choices"][0]["text"]
    assert server.complete(prompt=prompt, echo=True).json()["choices"][0]["text"] == (
        "hello" + plain
    )
    events = events_of(server.complete(prompt=prompt, echo=True, stream=True))
    assert text_of(events) == "hello" + plain


def test_echo_with_max_tokens_0_returns_the_prompt_only(server: RunningServer) -> None:
    fields = {"echo": True, "max_tokens": 0, "logprobs": 1}
    answer = server.complete(**fields).json()
    choice = answer["choices"][0]
    assert choice["text"] == "hello"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == list("hello")
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert answer["usage"]["completion_tokens"] == 0
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *events, last = events_of(server.complete(**fields, **options))
    assert text_of(events) == "hello"
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == 0


def test_logprobs_are_parallel_lists_with_offsets(server: RunningServer) -> None:
    choice = server.complete(logprobs=2, max_tokens=30, echo=True).json()["choices"][0]
    logprobs = choice["logprobs"]
    lengths = {len(logprobs[name]) for name in logprobs}
    assert lengths == {35}
    assert logprobs["text_offset"][:6] == [0, 1, 2, 3, 4, 5]
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])
    for offset, token in zip(logprobs["text_offset"], logprobs["tokens"], strict=True):
        if token.isascii():
            assert choice["text"][offset : offset + len(token)] == token
    assert all(len(top) >= 1 for top in logprobs["top_logprobs"][1:])


def test_streamed_logprobs_are_the_same(server: RunningServer) -> None:
    fields = {"logprobs": 1, "max_tokens": 30, "echo": True}
    whole = server.complete(**fields).json()["choices"][0]["logprobs"]
    events = events_of(server.complete(**fields, stream=True))
    parts = [c["logprobs"] for e in events for c in e["choices"] if c["logprobs"]]
    for name, values in whole.items():
        assert [value for part in parts for value in part[name]] == values


def test_token_ids_of_prompt_and_answer_are_returned(server: RunningServer) -> None:
    whole = server.complete(return_token_ids=True, max_tokens=9).json()["choices"][0]
    assert len(whole["prompt_token_ids"]) == 5
    assert len(whole["token_ids"]) == 9
    events = events_of(server.complete(return_token_ids=True, max_tokens=9, stream=True))
    assert events[0]["choices"][0]["prompt_token_ids"] == whole["prompt_token_ids"]
    streamed = [i for e in events[1:] for c in e["choices"] for i in c["token_ids"]]
    assert streamed == whole["token_ids"]


def test_prompt_logprobs_belong_to_the_choice(server: RunningServer) -> None:
    choice = server.complete(prompt_logprobs=0).json()["choices"][0]
    assert choice["prompt_logprobs"][0] is None
    assert len(choice["prompt_logprobs"]) == 5


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate_prompt_tokens": 3}, "llo"),
        ({"truncate_prompt_tokens": 3, "truncation_side": "right"}, "hel"),
        ({"truncate_prompt_tokens": 30}, "hello"),
        ({"truncate_prompt_tokens": -1}, "hello"),
    ],
)
def test_prompts_are_truncated(server: RunningServer, fields: dict[str, Any], kept: str) -> None:
    assert server.complete(echo=True, max_tokens=0, **fields).json()["choices"][0]["text"] == kept


def test_minus_1_truncates_to_what_fits(server: RunningServer) -> None:
    answer = server.complete(prompt="x" * 2000, truncate_prompt_tokens=-1, max_tokens=6)
    assert answer.json()["usage"] == {
        "prompt_tokens": 250,
        "total_tokens": 256,
        "completion_tokens": 6,
        "prompt_tokens_details": answer.json()["usage"]["prompt_tokens_details"],
    }


def test_a_repeated_prompt_is_reported_as_cached(server: RunningServer) -> None:
    prompt = "the prefix cache works on whole blocks of tokens"
    server.complete(prompt=prompt)
    details = server.complete(prompt=prompt).json()["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] == len(prompt) // 16 * 16 - (16 if len(prompt) % 16 == 0 else 0)


def test_stop_token_ids_end_the_answer_and_are_named(server: RunningServer) -> None:
    ids = server.complete(return_token_ids=True, max_tokens=9).json()["choices"][0]["token_ids"]
    choice = server.complete(stop_token_ids=[ids[4]], max_tokens=9, return_token_ids=True)
    ended = choice.json()["choices"][0]
    assert ended["token_ids"] == ids[: ids.index(ids[4]) + 1]
    assert ended["finish_reason"] == "stop"
    assert ended["stop_reason"] == ids[4]


def test_the_default_room_shrinks_with_the_context(server: RunningServer) -> None:
    answer = server.complete(prompt="x" * 250, max_tokens=None).json()
    assert answer["usage"]["completion_tokens"] == 6
