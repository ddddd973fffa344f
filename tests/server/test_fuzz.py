"""Random bodies: the status is 200 or 4xx, the answer is JSON in the right shape, always."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.server.conftest import RunningServer
from wheelpit.server.protocol import ChatRequest, CompletionRequest

JSON = {"content-type": "application/json"}
SETTINGS = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
sensible: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(0, 3),
    "max_tokens": st.integers(-1, 12),
    "temperature": st.floats(-0.1, 2.1),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-2, 300),
    "min_tokens": st.integers(0, 5),
    "stop": st.lists(st.text(max_size=3), max_size=2),
    "stop_token_ids": st.lists(st.integers(0, 300), max_size=2),
    "logit_bias": st.dictionaries(st.integers(0, 300).map(str), st.floats(-200, 200), max_size=2),
    "stream": st.booleans(),
    "echo": st.booleans(),
    "prompt_logprobs": st.integers(-1, 3),
    "top_logprobs": st.integers(-1, 3),
    "truncate_prompt_tokens": st.integers(-1, 9),
    "prompt": st.one_of(
        st.text(max_size=20),
        st.lists(st.text(max_size=5), max_size=3),
        st.lists(st.integers(3, 260), max_size=5),
        st.lists(st.lists(st.integers(3, 258), max_size=3), max_size=3),
    ),
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.text(max_size=5), "content": st.text(max_size=9)}),
        max_size=3,
    ),
}


def bodies(struct: type[msgspec.Struct], **always: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the struct's fields, half of them sensible, half anything."""
    names = list(struct.__struct_fields__)
    field = st.sampled_from(names).flatmap(
        lambda name: st.tuples(st.just(name), sensible.get(name, values) | values)
    )
    return st.lists(field, max_size=4).map(lambda fields: {**always, **dict(fields)})


def check(running: RunningServer, path: str, content: bytes) -> None:
    response = running.client.post(path, content=content, headers=JSON)
    assert response.status_code == 200 or 400 <= response.status_code < 500, response.text
    if response.status_code == 200:
        if not response.headers["content-type"].startswith("text/event-stream"):
            assert response.json()["choices"]
        return
    assert len(response.content) < 4096
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == response.status_code


@SETTINGS
@given(body=bodies(CompletionRequest, prompt="hello", max_tokens=3))
def test_completions(server: RunningServer, body: dict[str, Any]) -> None:
    check(server, "/v1/completions", msgspec.json.encode(body))


@SETTINGS
@given(body=bodies(ChatRequest, messages=[{"role": "user", "content": "hi"}], max_tokens=3))
def test_chat(server: RunningServer, body: dict[str, Any]) -> None:
    check(server, "/v1/chat/completions", msgspec.json.encode(body))


@SETTINGS
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(content=b'{"prompt":"\xed\xa0\x80"}')
@example(content=b'{"prompt":"hello"')
def test_bytes(server: RunningServer, content: bytes) -> None:
    check(server, "/v1/completions", content)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
@SETTINGS
@given(body=st.dictionaries(st.sampled_from(["prompt", "tokens", "messages", "model"]), values))
def test_tokenizing(server: RunningServer, path: str, body: dict[str, Any]) -> None:
    response = server.client.post(path, content=msgspec.json.encode(body), headers=JSON)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        assert response.json()["error"]["code"] == response.status_code
