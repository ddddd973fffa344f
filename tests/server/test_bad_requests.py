"""Whatever is wrong with a request is a short, named 4xx, and the server goes on serving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fake_worker import EXITS
from tests.server.conftest import MakeServer, RunningServer
from wheelpit.server.options import ServerOptions

CHAT = "/v1/chat/completions"
COMPLETE = "/v1/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def _still_serves(server: RunningServer) -> Iterator[None]:
    yield
    assert server.is_serving()


def assert_error(
    response: httpx.Response, status: int = 400, kind: str | None = None, param: str | None = None
) -> str:
    """Check OpenAI's shape and the size; return the message."""
    assert response.status_code == status, response.text
    assert len(response.content) < 4096
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert error["message"]
    if kind is not None:
        assert error["type"] == kind
    if param is not None:
        assert error["param"] == param
    message: str = error["message"]
    return message


NESTED = b'{"prompt":"x","whatever":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NESTED_MESSAGE = (
    b'{"messages":[{"role":"user","content":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}]}"
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b'{"prompt":"x","temperature":NaN}',
        b'{"prompt":"x","temperature":Infinity}',
        b'{"prompt":"x","temperature":-Infinity}',
        b'{"prompt":"x","temperature":1e999}',
        b'{"prompt":"x","max_tokens":1e999}',
        b'{"prompt":"x","max_tokens":' + b"9" * 5000 + b"}",
        b'{"prompt":"x","seed":99999999999999999999}',
        b'{"prompt":"x"} trailing',
        b"{'prompt':'x'}",
        b'{"prompt":"x",}',
        b'\xef\xbb\xbf{"prompt":"x"}',
        '{"prompt":"x"}'.encode("utf-16"),
        b'{"prompt":"\xff\xfe"}',
        b'{"prompt":"\xc3("}',
        b'{"prompt":"\\ud800"}',
        b'{"prompt":"a\x00b"}',
        NESTED,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_bodies_that_are_not_proper_json(server: RunningServer, body: bytes) -> None:
    assert_error(server.client.post(COMPLETE, content=body, headers=JSON), kind="Bad Request")


def test_a_deeply_nested_message(server: RunningServer) -> None:
    response = server.client.post(CHAT, content=NESTED_MESSAGE, headers=JSON)
    assert "nested too deeply" in assert_error(response)


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_a_wrong_content_type(server: RunningServer, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = server.client.post(COMPLETE, content=b'{"prompt":"x"}', headers=headers)
    assert "Content-Type: application/json" in assert_error(response)


def test_content_types_with_parameters_are_fine(server: RunningServer) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    response = server.client.post(COMPLETE, content=b'{"prompt":"x"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", "5"),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("temperature", "hot"),
        ("stream", "yes"),
        ("n", [1]),
        ("stop", 5),
        ("stop", [1, 2]),
        ("stop_token_ids", ["a"]),
        ("logit_bias", [1]),
        ("logit_bias", {"5": "x"}),
        ("logprobs", "all"),
        ("stream_options", True),
        ("model", 5),
        ("prompt", {"text": "x"}),
        ("prompt", 7),
        ("priority", "high"),
        ("request_id", 5),
        ("truncation_side", "middle"),
        ("skip_special_tokens", None),
    ],
)
def test_wrong_types_name_the_field(server: RunningServer, field: str, value: Any) -> None:
    message = assert_error(server.complete(**{field: value}), kind="Bad Request")
    assert field in message


@pytest.mark.parametrize("value", [2**31, 2**63 - 1, 2**63, 2**64, 10**40, -(2**63), -(10**40)])
@pytest.mark.parametrize(
    "name",
    [
        *("n", "max_tokens", "min_tokens", "top_k", "logprobs", "prompt_logprobs", "priority"),
        *("seed", "truncate_prompt_tokens", "temperature", "top_p", "repetition_penalty"),
    ],
)
def test_extreme_numbers_are_used_or_refused(server: RunningServer, name: str, value: int) -> None:
    response = server.complete(**{name: value})
    if response.status_code != 200:
        assert_error(response)


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids", "prompt"])
@pytest.mark.parametrize("value", [2**31, 2**63, 10**40, -(10**40)])
def test_extreme_token_ids_are_refused(server: RunningServer, name: str, value: int) -> None:
    assert_error(server.complete(**{name: [value]}))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 20_000}, "prompt"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"prompt": ["a"] * 100, "n": 1000}, "prompt"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -5}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"max_tokens": 10**18}, "max_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"logprobs": -5}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"bad_words": [""]}, "bad_words"),
        ({"stop_token_ids": [10**9]}, "stop_token_ids"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "x" * 300}, "request_id"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": ["a", [2]]}, "prompt"),
        ({"prompt": [-1]}, "prompt_token_ids"),
        ({"prompt": [10**9]}, "prompt_token_ids"),
        ({"prompt": "x" * 256}, "input_tokens"),
        ({"prompt": "x" * 255, "max_tokens": 2}, "max_tokens"),
        ({"truncate_prompt_tokens": 0}, "prompt"),
    ],
    ids=str,
)
def test_values_out_of_range_name_the_field(
    server: RunningServer, fields: dict[str, Any], param: str
) -> None:
    assert_error(server.complete(**fields), kind="BadRequestError", param=param)
    if not {"stream", "stream_options", "prompt_logprobs"} & set(fields):
        # A stream that never began is a plain error, too.
        assert_error(server.complete(**fields, stream=True), param=param)


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([], "empty"),
        ([{}], "role"),
        ([{"role": "user"}], "content"),
        ([{"role": 5, "content": "x"}], "role"),
        ([{"role": "user", "content": 5}], "content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "image_url"),
        ([{"role": "user", "content": [{"type": "text"}]}], "text"),
    ],
    ids=str,
)
def test_bad_messages(server: RunningServer, messages: Any, word: str) -> None:
    assert word in assert_error(server.chat(messages=messages))


def test_missing_messages(server: RunningServer) -> None:
    assert_error(server.post(CHAT, {"model": "tiny"}), kind="Bad Request", param="messages")


@pytest.mark.parametrize(
    "fields",
    [
        {"top_logprobs": 2},
        {"top_logprobs": 2, "logprobs": False},
        {"logprobs": True, "top_logprobs": 99},
        {"continue_final_message": True},
        {"chat_template_kwargs": {"messages": []}},
        {"max_tokens": 500},
    ],
    ids=str,
)
def test_contradictions_in_chat(server: RunningServer, fields: dict[str, Any]) -> None:
    assert_error(server.chat(**fields), kind="BadRequestError")


SHARED = {
    "use_beam_search": True,
    "length_penalty": 2.0,
    "best_of": 3,
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a+"},
    "guided_json": {"type": "object"},
    "guided_regex": "a+",
    "guided_choice": ["a", "b"],
    "guided_grammar": "root ::= x",
    "kv_transfer_params": {"a": 1},
    "vllm_xargs": {"a": 1},
    "repetition_detection": {"min_count": 2},
    "thinking_token_budget": 5,
    "logprob_token_ids": [1],
}
CHAT_ONLY = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "chat_template": "{{ x }}",
    "media_io_kwargs": {"a": 1},
    "mm_processor_kwargs": {"a": 1},
    "return_prompt_text": True,
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "audio": {"voice": "x"},
    "web_search_options": {"a": 1},
}
COMPLETION_ONLY = {"suffix": "end", "prompt_embeds": "AAAA"}


@pytest.mark.parametrize("name", [*SHARED, *COMPLETION_ONLY])
def test_completions_refuse_what_they_cannot_do_by_name(server: RunningServer, name: str) -> None:
    response = server.complete(**{name: {**SHARED, **COMPLETION_ONLY}[name]})
    assert name in assert_error(response, kind="BadRequestError", param=name)


@pytest.mark.parametrize("name", [*SHARED, *CHAT_ONLY])
def test_chat_refuses_what_it_cannot_do_by_name(server: RunningServer, name: str) -> None:
    response = server.chat(**{name: {**SHARED, **CHAT_ONLY}[name]})
    assert name in assert_error(response, kind="BadRequestError", param=name)


def test_defaults_of_unsupported_fields_are_accepted(server: RunningServer) -> None:
    harmless = {
        "use_beam_search": False,
        "length_penalty": 1.0,
        "best_of": 1,
        "response_format": {"type": "text"},
        "structured_outputs": None,
        "vllm_xargs": {},
    }
    assert server.complete(**harmless, suffix="").status_code == 200
    assert server.chat(**harmless, tools=[], tool_choice="auto").status_code == 200
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert server.chat(tools=tools, tool_choice="none").status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETE, "/tokenize"])
def test_an_unknown_model_is_not_found(server: RunningServer, path: str) -> None:
    body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], "model": "gpt-9"}
    message = assert_error(server.post(path, body), 404, "NotFoundError", "model")
    assert message == "The model `gpt-9` does not exist."


def test_an_unknown_route_and_a_wrong_method(server: RunningServer) -> None:
    assert_error(server.client.get("/v2/nothing"), 404, "NotFoundError")
    assert_error(server.client.get("/" + "x" * 5000), 404)
    response = server.client.get(CHAT)
    assert_error(response, 405)
    assert "POST" in response.headers["allow"]


def test_a_huge_prompt_is_refused_before_it_is_tokenized(server: RunningServer) -> None:
    message = assert_error(server.complete(prompt="x " * 5_000_000), param="input_text")
    assert "256 tokens" in message
    assert "at least 833333 characters" in message
    messages = [{"role": "user", "content": "x " * 5_000_000}]
    assert_error(server.chat(messages=messages), param="input_text")


def test_a_huge_wrong_value_is_not_echoed(server: RunningServer) -> None:
    assert_error(server.complete(temperature="x" * 1_000_000))
    assert_error(server.complete(stop_token_ids=[10**9] * 100_000))
    assert_error(server.complete(model="x" * 1_000_000), 404)


def test_a_body_over_the_limit_is_413(make_server: MakeServer) -> None:
    small = make_server(ServerOptions(max_body_bytes=1000))
    response = small.complete(prompt="x" * 2000)
    message = assert_error(response, 413)
    assert "limit is 1000" in message
    assert "--max-body-bytes" in message

    def chunks() -> Iterator[bytes]:
        yield b'{"prompt":"'
        for _ in range(100):
            yield b"x" * 1000

    response = small.client.post(COMPLETE, content=chunks(), headers=JSON)
    assert_error(response, 413)
    assert small.is_serving()


def test_a_body_over_the_default_limit_is_413(server: RunningServer) -> None:
    body = json.dumps({"prompt": "x" * (33 * 1024 * 1024)}).encode()
    assert_error(server.client.post(COMPLETE, content=body, headers=JSON), 413)


def test_bytes_that_are_not_http_are_answered_with_400(server: RunningServer) -> None:
    import socket

    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400")


def test_a_prompt_that_ends_every_engine_is_a_500_and_the_next_is_served(
    make_server: MakeServer,
) -> None:
    running = make_server()
    message = assert_error(running.complete(prompt=[EXITS]), 500, "InternalServerError")
    assert "3 engine processes in a row died while it ran" in message
    assert running.is_serving()
    assert running.client.get("/health").status_code == 200
