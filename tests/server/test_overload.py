"""More work than the limits allow is refused at once, cheaply, and said when to come back."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.conftest import GatedServer, MakeGated, MakeServer, RunningServer
from tests.server.raw_client import FIRST_TOKEN, RawClient, chat, complete, stream
from tests.server.scripted_engine import ScriptedEngine, delta
from tests.server.sse_reader import events_of
from wheelpit.errors import ConfigError, EngineGenerateError, OverloadedError
from wheelpit.request import RequestOutput
from wheelpit.server.options import ServerOptions

IDS = [5, 6, 7]
"""A prompt that needs no tokenizer."""


@contextmanager
def filled(gated: GatedServer, num_queued: int) -> Iterator[list[RawClient]]:
    """Take the only seat, and let so many wait; at the end all of them leave."""
    running = gated.server
    gated.gate.step(1)
    with ExitStack() as stack:
        clients = [stack.enter_context(stream(running, prompt=IDS))]
        clients[0].read_until(FIRST_TOKEN)
        for _ in range(num_queued):
            clients.append(stack.enter_context(complete(running, prompt=IDS)))
        running.wait_until(lambda: running.engine.stats().num_queued == num_queued)
        yield clients


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("is_stream", [False, True])
def test_who_comes_when_the_queue_is_full_is_told_when_to_come_back(
    make_gated: MakeGated, status: int, is_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gated = make_gated(ServerOptions(overload_status=status), max_num_seqs=1, max_num_queued_reqs=2)
    running = gated.server
    with filled(gated, 2):
        response = running.complete(stream=is_stream, request_id="third")
        text = running.metrics()
    assert response.status_code == status
    assert response.headers["x-request-id"] == "third"
    assert int(response.headers["retry-after"]) >= 1
    error = response.json()["error"]
    kind = {429: "RateLimitError", 503: "ServiceUnavailableError"}[status]
    assert (error["type"], error["code"], error["reason"]) == (kind, status, "queue_full")
    assert "max_num_queued_reqs" in error["message"]
    assert "try again in" in error["message"]
    assert error["estimate_s"] is None

    record = gated.watcher.next()
    assert (record.request_id, record.finish_reason) == ("cmpl-third", "refused")
    assert record.stop_reason == "queue_full"
    assert [m for m in caplog.messages if "cmpl-third" in m] == [
        "request cmpl-third: refused (queue_full)"
    ]
    assert running.metric(text, "wheelpit:admission_rejections_total", reason="queue_full") == 1
    refused = {"name": "wheelpit:request_success_total", "finished_reason": "refused"}
    assert running.metric(text, **refused) == 1
    assert running.metric(text, "wheelpit:num_queued_reqs") == 2
    assert running.metric(text, "wheelpit:num_queued_tokens") == 2 * len(IDS)
    assert running.metric(text, "wheelpit:e2e_request_latency_seconds_count") == 0


def test_the_answer_has_the_engines_own_figures(
    make_server: MakeServer, model_folder: Path
) -> None:
    engine = ScriptedEngine(model_folder, says_one)
    engine.refusal = OverloadedError(
        "too much", retry_after_s=12.01, reason="deadline", estimate_s=12.34567
    )
    running = make_server(engine=engine)
    response = running.chat()
    assert response.headers["retry-after"] == "13"
    assert response.json()["error"] == {
        "message": "too much",
        "type": "RateLimitError",
        "param": None,
        "code": 429,
        "reason": "deadline",
        "estimate_s": 12.346,
    }


async def says_one() -> AsyncGenerator[RequestOutput, None]:
    yield delta("one", 5, finish_reason="stop")


def test_a_refusal_costs_no_tokenizing_and_no_template(
    make_gated: MakeGated, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=1)
    running = gated.server

    def fail(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a refused request was worked on")

    with filled(gated, 1):
        monkeypatch.setattr(running.engine.model_config.tokenizer, "encode_async", fail)
        monkeypatch.setattr(type(running.engine.model_config), "chat_template", fail)
        assert running.complete().status_code == 429
        assert running.chat().status_code == 429


def test_a_list_is_admitted_or_refused_as_a_whole(make_gated: MakeGated) -> None:
    """Larger than the bound, it comes in when nobody waits, as any single request may."""
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=2)
    running = gated.server
    with complete(running, prompt=["a"] * 9) as client:
        # One of them has the seat.
        running.wait_until(lambda: running.engine.stats().num_queued == 8)
        response = running.complete(prompt=["b"] * 3, request_id="list")
        assert response.status_code == 429
        # One line, one count, whatever its length.
        record = gated.watcher.next()
        assert (record.request_id, record.finish_reason) == ("cmpl-list", "refused")
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 8
        client.leave()
        assert {gated.watcher.next().finish_reason for _ in range(9)} == {"abort"}
    assert gated.watcher.is_empty()


def test_prompt_tokens_are_bounded_too(make_gated: MakeGated) -> None:
    gated = make_gated(max_num_seqs=1, max_num_queued_tokens=100)
    with filled(gated, 1):
        for prompt in ([5] * 100, "x" * 400, ["x" * 200, "x" * 200]):
            response = gated.server.complete(prompt=prompt)
            assert response.json()["error"]["reason"] == "queue_tokens"
        # A text counts for a quarter of its characters until it is tokenized.
        with complete(gated.server, prompt="x" * 200, max_tokens=5):
            gated.server.wait_until(lambda: gated.server.engine.stats().num_queued == 2)


@pytest.fixture
def bounded(make_gated: MakeGated) -> GatedServer:
    """One seat and one place to wait in: any place that is not given back is noticed."""
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=1)
    gated.gate.open()
    return gated


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/completions", {"prompt": "x", "model": "none"}, 404),
    ("/v1/completions", {"prompt": "x", "temperature": -1}, 400),
    ("/v1/completions", {"prompt": ["x", ""]}, 400),
    ("/v1/completions", {"prompt": "x" * 500}, 400),
    ("/v1/completions", {"prompt": "x", "n": 0}, 400),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}, 400),
    ("/v1/completions", {"prompt": "x", "timeout": -1}, 400),
    ("/v1/completions", {"prompt": [99999]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": -1}, 400),
    ("/v1/chat/completions", {"messages": []}, 200),
    ("/v1/chat/completions", {"messages": [{"content": 1}]}, 200),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD, ids=str)
def test_a_place_is_given_back_by_requests_that_are_at_fault(
    bounded: GatedServer, path: str, body: dict[str, Any], status: int
) -> None:
    running = bounded.server
    for is_stream in (False, True):
        response = running.post(path, {**body, "stream": is_stream, "max_tokens": 2})
        assert response.status_code == status or status == 200
        for _ in range(len(body["prompt"]) if body.get("prompt") == ["x", ""] else 1):
            record = bounded.watcher.next()
            if response.status_code >= 400:
                assert (record.finish_reason, record.stop_reason) == ("refused", "invalid")
        assert running.on_loop(lambda: len(running.live)) == 0
        assert running.on_loop(lambda: running.engine.stats().num_queued) == 0
    assert bounded.watcher.is_empty()
    # Refused for their own sake, not for want of room.
    assert running.metric(running.metrics(), "wheelpit:admission_rejections_total") == 0


async def fails_at_once() -> AsyncGenerator[RequestOutput, None]:
    raise EngineGenerateError("the fake failed")
    yield delta("")


async def fails_later() -> AsyncGenerator[RequestOutput, None]:
    yield delta("one", 5)
    raise RuntimeError("broken")


@pytest.mark.parametrize("script", [fails_at_once, fails_later, says_one])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("prompt", ["x", ["x", "y", "z"]])
def test_whatever_the_engine_does_nothing_stays_live(
    make_server: MakeServer, model_folder: Path, script: Any, is_stream: bool, prompt: Any
) -> None:
    running = make_server(engine=ScriptedEngine(model_folder, script))
    running.complete(stream=is_stream, prompt=prompt)
    running.wait_until(lambda: len(running.live) == 0)
    assert running.on_loop(lambda: running.live.engine_ids) == []


@pytest.mark.parametrize("send", [complete, stream, chat])
def test_a_place_is_given_back_by_clients_that_leave(make_gated: MakeGated, send: Any) -> None:
    """Thirty come and go while the seat is taken; each finds the one place to wait in free."""
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=1)
    running = gated.server
    gated.gate.step(1)
    with stream(running) as holder:
        holder.read_until(FIRST_TOKEN)
        for number in range(30):
            with send(running, {"x-request-id": f"visitor-{number}"}):
                running.wait_until(lambda: running.engine.stats().num_queued == 1)
            record = gated.watcher.next()
            assert (record.finish_reason, record.num_generation_tokens) == ("abort", 0)
            assert f"visitor-{number}" in record.request_id


def test_openais_client_comes_back_when_it_was_told_to(
    make_gated: MakeGated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it sleeps, the server gets rid of its work; its second try is answered."""
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=1)
    slept_s: list[float] = []
    with filled(gated, 1) as clients:

        def sleep(seconds: float) -> None:
            slept_s.append(seconds)
            assert gated.watcher.next().finish_reason == "refused"
            for client in clients:
                client.leave()
                assert gated.watcher.next().finish_reason == "abort"
            gated.gate.open()

        monkeypatch.setattr("openai._base_client.time.sleep", sleep)
        url = f"{gated.server.url}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=1) as client:
            answer = client.completions.create(model="tiny", prompt="x", max_tokens=3)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    # What the header said, and not the client's own guess of half a second.
    assert slept_s == [1.0]
    assert gated.watcher.next().finish_reason == "length"


def test_openais_client_that_does_not_try_again_has_a_rate_limit_error(
    make_gated: MakeGated,
) -> None:
    gated = make_gated(max_num_seqs=1, max_num_queued_reqs=1)
    with (
        filled(gated, 1),
        openai.OpenAI(base_url=f"{gated.server.url}/v1", api_key="x", max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as raised,
    ):
        client.completions.create(model="tiny", prompt="x")
    assert raised.value.response.headers["retry-after"] == "1"
    body: Any = raised.value.body
    assert body["reason"] == "queue_full"


def test_who_would_start_too_late_can_be_refused_at_once(make_gated: MakeGated) -> None:
    """The engine knows how long a seat was held: the first request had it for a step or more."""
    gated = make_gated(max_num_seqs=1, refuse_late=True)
    running = gated.server
    gated.gate.step(1)
    with stream(running, max_tokens=1, prompt=IDS) as first:
        events_of(first.answer())
    with filled(gated, 50):
        response = running.complete(queue_timeout=1e-6)
    assert response.status_code == 429
    error = response.json()["error"]
    assert error["reason"] == "deadline"
    assert error["estimate_s"] > 1e-6


def test_a_server_bounds_its_queue_unless_told_otherwise(server: RunningServer) -> None:
    """The library does not: `wheelpit serve` does, see tests/cli/test_serve.py."""
    assert server.engine.limits.max_num_queued_reqs is None


@pytest.mark.parametrize("options", [{"overload_status": 500}, {"keep_alive_s": -1.0}])
def test_options_check_their_ranges(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServerOptions(**options)
