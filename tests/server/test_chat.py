"""POST /v1/chat/completions, whole and streamed."""

from __future__ import annotations

import pytest

from tests.server.conftest import RunningServer
from tests.server.sse_reader import events_of, text_of

PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
NUM_PROMPT_TOKENS = 1 + len("user\nhi") + 1 + 1 + 1 + len("assistant\n")


def test_a_whole_answer_has_every_field(server: RunningServer) -> None:
    answer = server.chat(max_tokens=5).json()
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["system_fingerprint"].startswith("wheelpit-")
    for name in ("service_tier", "prompt_logprobs", "prompt_token_ids", "kv_transfer_params"):
        assert answer[name] is None
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["stop_reason"] is choice["logprobs"] is choice["token_ids"] is None
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["tool_calls"] == []
    usage = answer["usage"]
    assert usage["prompt_tokens"] == NUM_PROMPT_TOKENS
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == NUM_PROMPT_TOKENS + 5
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 0


def test_a_stream_tells_the_same_as_a_whole_answer(server: RunningServer) -> None:
    whole = server.chat(max_tokens=40, seed=7).json()
    events = events_of(server.chat(max_tokens=40, seed=7, stream=True))
    assert text_of(events) == whole["choices"][0]["message"]["content"]
    first, last = events[0]["choices"][0], events[-1]["choices"][0]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert first["finish_reason"] is None
    assert last["finish_reason"] == "length"
    assert last["stop_reason"] is None
    assert all(event["object"] == "chat.completion.chunk" for event in events)
    assert len({event["id"] for event in events}) == 1
    assert all("usage" not in event for event in events)
    assert ["system_fingerprint" in event for event in events].count(True) == 1


def test_include_usage_ends_with_a_chunk_without_choices(server: RunningServer) -> None:
    response = server.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last = events_of(response)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert last["usage"]["prompt_tokens"] == NUM_PROMPT_TOKENS
    assert all("usage" not in chunk for chunk in chunks)


def test_continuous_usage_counts_up(server: RunningServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    _, *events = events_of(server.chat(stream=True, stream_options=options, max_tokens=9))
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[-1] == 9


def test_n_gives_that_many_different_choices(server: RunningServer) -> None:
    whole = server.chat(n=3, seed=1, temperature=1.0, max_tokens=12).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert whole["usage"]["completion_tokens"] == 36
    events = events_of(server.chat(n=3, seed=1, temperature=1.0, max_tokens=12, stream=True))
    for choice in whole["choices"]:
        assert text_of(events, choice["index"]) == choice["message"]["content"]
    finished = [c["index"] for e in events for c in e["choices"] if c["finish_reason"]]
    assert sorted(finished) == [0, 1, 2]


def test_logprobs_describe_each_token_with_its_alternatives(server: RunningServer) -> None:
    answer = server.chat(logprobs=True, top_logprobs=2, max_tokens=6, return_token_ids=True).json()
    choice = answer["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == len(choice["token_ids"]) == 6
    assert (
        bytes(b for token in content for b in token["bytes"]).decode(errors="replace")
        == (choice["message"]["content"])
    )
    assert all(len(token["top_logprobs"]) <= 2 for token in content)
    assert all(token["logprob"] <= 0 for token in content)


def test_streamed_logprobs_cover_the_same_tokens(server: RunningServer) -> None:
    fields = {"logprobs": True, "top_logprobs": 1, "max_tokens": 20, "seed": 3}
    whole = server.chat(**fields).json()["choices"][0]["logprobs"]["content"]
    events = events_of(server.chat(**fields, stream=True))
    streamed = [
        token
        for event in events
        for choice in event["choices"]
        if choice["logprobs"]
        for token in choice["logprobs"]["content"]
    ]
    assert streamed == whole


def test_token_ids_are_returned_when_asked_for(server: RunningServer) -> None:
    whole = server.chat(return_token_ids=True, max_tokens=8).json()
    assert len(whole["prompt_token_ids"]) == NUM_PROMPT_TOKENS
    events = events_of(server.chat(return_token_ids=True, max_tokens=8, stream=True))
    assert events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    streamed = [i for e in events[1:] for c in e["choices"] for i in c["token_ids"]]
    assert streamed == whole["choices"][0]["token_ids"]


def test_tokens_can_be_shown_as_ids(server: RunningServer) -> None:
    answer = server.chat(logprobs=True, return_tokens_as_token_ids=True, return_token_ids=True)
    choice = answer.json()["choices"][0]
    shown = [token["token"] for token in choice["logprobs"]["content"]]
    assert shown == [f"token_id:{token_id}" for token_id in choice["token_ids"]]


def test_prompt_logprobs_come_with_a_whole_answer(server: RunningServer) -> None:
    answer = server.chat(prompt_logprobs=1).json()
    assert answer["prompt_logprobs"][0] is None
    assert len(answer["prompt_logprobs"]) == NUM_PROMPT_TOKENS
    (entry, *_) = answer["prompt_logprobs"][1].values()
    assert set(entry) == {"logprob", "rank", "decoded_token"}


def test_max_completion_tokens_wins_over_max_tokens(server: RunningServer) -> None:
    answer = server.chat(max_tokens=9, max_completion_tokens=3).json()
    assert answer["usage"]["completion_tokens"] == 3


def test_without_max_tokens_the_context_is_the_limit(server: RunningServer) -> None:
    answer = server.chat(max_tokens=None, ignore_eos=True).json()
    assert answer["usage"]["total_tokens"] == 256
    assert answer["choices"][0]["finish_reason"] == "length"


def test_continue_final_message_leaves_the_last_message_open(server: RunningServer) -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Once upon"},
    ]
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    body = {"messages": messages, "return_token_ids": True, "max_tokens": 2, **fields}
    answer = server.post("/v1/chat/completions", body).json()
    ids = server.post("/tokenize", {"messages": messages, **fields}).json()["tokens"]
    assert answer["prompt_token_ids"] == ids
    assert server.post("/detokenize", {"tokens": ids}).json()["prompt"].endswith("Once upon")


@pytest.mark.parametrize("stream", [False, True])
def test_echo_repeats_the_last_message_of_the_same_role(
    server: RunningServer, stream: bool
) -> None:
    body = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once"}],
        "echo": True,
        "max_tokens": 2,
        "stream": stream,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    response = server.post("/v1/chat/completions", body)
    if stream:
        assert text_of(events_of(response)).startswith("Once")
    else:
        assert response.json()["choices"][0]["message"]["content"].startswith("Once")


def test_content_may_be_a_list_of_text_parts(server: RunningServer) -> None:
    parts = [{"type": "text", "text": "hi"}]
    answer = server.chat(messages=[{"role": "user", "content": parts}])
    assert answer.json()["usage"]["prompt_tokens"] == NUM_PROMPT_TOKENS


def test_stop_strings_end_the_answer_and_are_named(server: RunningServer) -> None:
    text = server.chat(max_tokens=100).json()["choices"][0]["message"]["content"]
    stop = next(c for c in text if c.isascii() and c.isprintable())
    choice = server.chat(max_tokens=100, stop=[stop]).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == stop
    assert choice["message"]["content"] == text[: text.index(stop)]
    events = events_of(server.chat(max_tokens=100, stop=stop, stream=True))
    assert text_of(events) == text[: text.index(stop)]
    assert events[-1]["choices"][0]["stop_reason"] == stop


def test_unknown_fields_are_ignored(server: RunningServer) -> None:
    assert server.chat(frobnicate={"deep": [1, 2]}, store=True, metadata={}).status_code == 200


def test_null_means_the_default_for_openai_fields(server: RunningServer) -> None:
    names = ("n", "stop", "seed", "temperature", "top_p", "stream", "stream_options", "logprobs")
    assert server.chat(**dict.fromkeys(names), tools=None, response_format=None).status_code == 200
