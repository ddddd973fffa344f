"""Streams that wait say so in comments, which no client takes for anything else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.conftest import MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, chat, stream
from tests.server.scripted_engine import ScriptedEngine, delta
from tests.server.sse_reader import comments_of, events_of, text_of
from wheelpit.bench.http_stream import EventReader, HttpClient
from wheelpit.cli.chat_client import ChatClient
from wheelpit.request import RequestOutput, RequestProgress
from wheelpit.server.event_sender import EventSender
from wheelpit.server.options import ServerOptions

OFTEN = ServerOptions(keep_alive_s=0.005)


def test_a_stream_that_waits_is_told_its_place(make_gated: MakeGated) -> None:
    gated = make_gated(OFTEN, max_num_seqs=1)
    running = gated.server
    gated.gate.step(1)
    with (
        stream(running) as holder,
        stream(running, prompt="first") as first,
    ):
        holder.read_until(FIRST_TOKEN)
        first.read_until(b": queued position=1\n\n")
        with chat(running, stream=True) as second:
            second.read_until(b": queued position=2\n\n")
            # Whoever leaves makes room: no step is needed for that to be known.
            first.leave()
            second.read_until(b": queued position=1\n\n")
            gated.gate.open()
            response = second.answer()
    assert {*comments_of(response)} <= {
        "queued position=1",
        "queued position=2",
        *(c for c in comments_of(response) if re.fullmatch(r"queued position=\d+ eta_ms=\d+", c)),
        "keep-alive",
    }
    assert events_of(response)[-1]["choices"][0]["finish_reason"] == "length"


def test_the_time_is_told_once_it_can_be_estimated(make_gated: MakeGated) -> None:
    """From how long others had their seats: the first of all cannot know."""
    gated = make_gated(OFTEN, max_num_seqs=1)
    running = gated.server
    gated.gate.step(2)
    with stream(running, max_tokens=1) as done:
        assert events_of(done.answer())
    with stream(running) as holder, stream(running) as waiting:
        holder.read_until(FIRST_TOKEN)
        text = waiting.read_until(b"eta_ms=").decode()
        assert re.search(r": queued position=1 eta_ms=", text)


def test_a_long_prefill_is_kept_alive(make_gated: MakeGated) -> None:
    """It runs, and no step has ended that would have brought a token."""
    gated = make_gated(OFTEN, max_num_seqs=1, max_num_batched_tokens=16)
    with stream(gated.server, prompt="x" * 40, max_tokens=2) as client:
        gated.gate.step(1)
        client.read_until(b": keep-alive\n\n")
        gated.gate.open()
        events = events_of(client.answer())
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_silence_in_the_middle_of_an_answer_is_kept_alive_too(make_gated: MakeGated) -> None:
    gated = make_gated(OFTEN, max_num_seqs=1)
    gated.gate.step(1)
    with stream(gated.server) as client:
        client.read_until(FIRST_TOKEN)
        client.received = b""
        client.read_until(b": keep-alive\n\n")


def test_errors_before_a_prompt_is_known_to_be_good_are_plain_answers(
    make_gated: MakeGated,
) -> None:
    """However often comments are sent: not a word before the prompt was checked."""
    gated = make_gated(OFTEN, max_num_seqs=1)
    response = gated.server.complete(prompt="x" * 500, stream=True)
    assert response.status_code == 400


def test_comments_can_be_switched_off(make_gated: MakeGated) -> None:
    gated = make_gated(ServerOptions(keep_alive_s=0), max_num_seqs=1)
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder, stream(running) as waiting:
        holder.read_until(FIRST_TOKEN)
        running.wait_until(lambda: running.engine.stats().num_queued == 1)
        gated.gate.open()
        assert comments_of(waiting.answer()) == []


# --- clients


async def waits_for_comments(engine: ScriptedEngine) -> AsyncGenerator[RequestOutput, None]:
    """Says nothing until three comments were written, then two tokens with two more between."""
    engine.questions = asyncio.Queue()
    for _ in range(3):
        await engine.questions.get()
    yield delta("one", 5)
    for _ in range(2):
        await engine.questions.get()
    yield delta(" two", 6, finish_reason="stop")


@pytest.fixture
def commenting(make_server: MakeServer, model_folder: Path) -> RunningServer:
    engine = ScriptedEngine(model_folder, lambda: waits_for_comments(engine))
    engine.progress_to_tell = RequestProgress(state="queued", position=3, eta_s=1.2)
    return make_server(OFTEN, engine=engine)


def test_the_wire_has_them_between_events(commenting: RunningServer) -> None:
    for send in (commenting.chat, commenting.complete):
        response = send(stream=True)
        comments = comments_of(response)
        assert len(comments) >= 3, response.text
        assert set(comments) == {"queued position=3 eta_ms=1200"}
        assert text_of(events_of(response)) == "one two"


def test_openais_client_reads_over_them(commenting: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{commenting.url}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two"
        pieces = client.completions.create(model="tiny", prompt="x", stream=True)
        assert "".join(piece.choices[0].text for piece in pieces) == "one two"


async def test_openais_asynchronous_client_reads_over_them(commenting: RunningServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{commenting.url}/v1", api_key="none") as client:
        chunks = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
    assert "".join(parts) == "one two"


def test_a_reader_of_lines_reads_over_them(commenting: RunningServer) -> None:
    """As one writes it by hand: only lines that begin with data: count."""
    body = {"prompt": "x", "stream": True}
    texts = []
    with commenting.client.stream("POST", "/v1/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                texts.append(json.loads(line[6:])["choices"][0]["text"])
    assert "".join(texts) == "one two"


def test_wheelpit_chat_reads_over_them(commenting: RunningServer) -> None:
    client = ChatClient(commenting.url)
    messages = [{"role": "user", "content": "hi"}]
    pieces = list(client.stream_chat({"model": "tiny", "messages": messages}))
    assert "".join(pieces) == "one two"


async def test_wheelpit_bench_reads_over_them(commenting: RunningServer) -> None:
    client = HttpClient(commenting.url, clock=lambda: 0.0, api_key=None, timeout_s=60)
    body = json.dumps({"prompt": "x", "stream": True}).encode()
    exchange = await client.post("/v1/completions", body, is_stream=True)
    client.close()
    assert (exchange.status, exchange.finish_reason) == (200, "stop")
    assert sum(exchange.arrival_events) == 2
    assert EventReader().feed(b": queued position=1\n\n") == 0


# --- the sender alone


class SlowClient:
    """An ASGI `send` that takes nothing while it is closed."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_open = asyncio.Event()
        self.is_blocked = asyncio.Event()

    async def send(self, message: Any) -> None:
        if not self.is_open.is_set():
            self.is_blocked.set()
            await self.is_open.wait()
        self.sent.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.sent if m["type"] == "http.response.body"]


def counting(asked: list[int]) -> Callable[[], bytes]:
    def comment() -> bytes:
        asked.append(1)
        return b": c\n\n"

    return comment


async def test_a_client_that_is_behind_gets_no_comments_on_top() -> None:
    """They would pile up in memory, one a second, for as long as it does not read."""
    client, asked = SlowClient(), list[int]()
    async with EventSender(client.send, counting(asked), 60.0) as sender:
        sending = asyncio.create_task(sender.send(b"data: 1\n\n"))
        await client.is_blocked.wait()
        for _ in range(5):
            sender.look()
        assert asked == []
        client.is_open.set()
        await sending
        sender.look()
        assert asked == [1]
        await asyncio.sleep(0)
    assert client.bodies == [b"data: 1\n\n", b": c\n\n"]
    assert [m["type"] for m in client.sent].count("http.response.start") == 1


async def test_a_comment_that_nobody_takes_is_the_only_one_and_ends_with_the_stream() -> None:
    client, asked = SlowClient(), list[int]()
    async with EventSender(client.send, counting(asked), 60.0) as sender:
        sender.look()
        await client.is_blocked.wait()
        for _ in range(5):
            sender.look()
        assert asked == [1]
    client.is_open.set()
    await asyncio.sleep(0)
    assert client.sent == []
    assert len(asyncio.all_tasks()) == 1


async def test_every_interval_of_silence_has_its_comment() -> None:
    """A comment breaks the silence for the client, and not for the next comment."""
    client, asked = SlowClient(), list[int]()
    client.is_open.set()
    async with EventSender(client.send, counting(asked), 60.0) as sender:
        for number in (1, 2, 3):
            sender.look()
            await asyncio.sleep(0)
            assert len(asked) == number
        await sender.send(b"data: 1\n\n")
        sender.look()
        assert len(asked) == 3
    assert client.bodies == [b": c\n\n"] * 3 + [b"data: 1\n\n"]


async def test_no_comment_is_sent_after_the_end() -> None:
    client = SlowClient()
    client.is_open.set()
    async with EventSender(client.send, counting([]), 60.0) as sender:
        await sender.send(b"data: 1\n\n")
        sender.look()
        sender.look()
    await sender.end()
    await asyncio.sleep(0)
    assert client.bodies == [b"data: 1\n\n", b""]
    assert client.sent[-1]["more_body"] is False
