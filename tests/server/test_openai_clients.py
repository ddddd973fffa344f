"""OpenAI's own Python clients, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.server.conftest import MakeServer, RunningServer
from wheelpit.server.options import ServerOptions

MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES, seed=3, max_tokens=30)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 30
    assert whole.choices[0].finish_reason == "length"
    stream = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        seed=3,
        max_tokens=30,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 30
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_chat_logprobs_and_extra_body(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        logprobs=True,
        top_logprobs=2,
        max_completion_tokens=3,
        extra_body={"top_k": 5, "min_p": 0.1, "ignore_eos": True},
    )
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.content or ()) == 3


def test_completions_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", prompt=["a", "b"], seed=3, logprobs=1)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].logprobs is not None
    stream = client.completions.create(model="tiny", prompt="a", seed=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_errors_become_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert not_found.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=9)


def test_models_and_request_ids(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    answer = client.completions.create(
        model="tiny", prompt="x", extra_headers={"X-Request-Id": "mine"}
    )
    assert answer._request_id == "mine"
    assert answer.id == "cmpl-mine"


def test_keys(make_server: MakeServer) -> None:
    running = make_server(ServerOptions(api_keys=("secret",)))
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="secret") as client:
        client.models.list()
    with (
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


async def test_the_asynchronous_client_streams(server: RunningServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(
            model="tiny", messages=MESSAGES, seed=3, max_tokens=20
        )
        stream = await client.chat.completions.create(
            model="tiny", messages=MESSAGES, seed=3, max_tokens=20, stream=True
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(parts) == whole.choices[0].message.content
