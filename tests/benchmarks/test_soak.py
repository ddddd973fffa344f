"""The soak finds what it looks for, and a short one finds nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from soak import OBJECT_SLACK, Plan, compare, log_faults, soak
from soak_client import Answer, BrokenPromiseError, NumberedEvents
from soak_server import Sampler
from soak_traffic import Record

import wheelpit.server.sse
from tests.fake_worker import fake_worker
from tests.tiny_model import make_model_folder
from wheelpit import AsyncEngineArgs, AsyncLLMEngine
from wheelpit.engine.admission import Reservation
from wheelpit.server.app import service_of
from wheelpit.server.http_metrics import HttpMetrics
from wheelpit.server.listen import Listen, bind
from wheelpit.server.options import ServerOptions
from wheelpit.server.run import HttpServer


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("soaked") / "model")


def test_a_few_seconds_with_a_kill_are_clean(model_folder: Path, tmp_path: Path) -> None:
    plan = Plan(
        seconds=1.5,
        warm_up_s=0.3,
        rate_per_s=30.0,
        strike_every_s=0.6,
        model=str(model_folder),
        worker=fake_worker(step_ms=1),
        ways=("kill",),
        resume_window_s=0.2,
        rounds=1,
    )
    report = soak(plan, tmp_path / "log")
    assert report.is_clean, (report.differences, report.record.broken, report.faults)
    assert report.num_restarts >= report.strikes["kill"] >= 1
    assert report.record.ends["stream", "complete"] > 0


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> Iterator[AsyncLLMEngine]:
    args = AsyncEngineArgs(model=str(model_folder))
    engine = AsyncLLMEngine.launch(args, worker=fake_worker())
    engine.wait_until_ready()
    yield engine
    engine.shutdown()


async def test_what_is_left_behind_is_found_wherever_it_is(
    engine: AsyncLLMEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = Listen(host="127.0.0.1", port=0)
    with closing(bind(listen)) as sock:
        server = HttpServer(engine, ServerOptions(), listen, sock)
        sampler = Sampler(engine, server)
        sampler.held()  # makes what the next one finds
        before = sampler.held()
        assert compare(before, before, sampler.held()) == []

        # What a mistake in the server may leave in its tables.
        service, counts = service_of(server.app), HttpMetrics()._counts
        for middleware in server.app.user_middleware:
            if isinstance(metrics := middleware.kwargs.get("metrics"), HttpMetrics):
                counts = metrics._counts
        counts |= {(f"/path-{number}", "GET", "2xx"): 1 for number in range(1000)}
        service.live._by_id["left"] = {}
        engine._book._by_id["left"] = {}
        engine._intake._admission._idle["tenant"] = None
        monkeypatch.setattr(wheelpit.server.sse, "seen", ["a", "b"], raising=False)
        # What nobody refers to who was looked at.
        hidden = [Reservation("left", number=0, arrival_s=0.0, num_tokens=1, num_sequences=1)]
        hidden_lists = [[object()] for _ in range(OBJECT_SLACK + 1)]
        # What the system or the event loop keeps.
        with (tmp_path / "open").open("w"):
            task = asyncio.create_task(asyncio.Event().wait())
            timer = asyncio.get_running_loop().call_later(3600.0, print)
            leave = threading.Event()
            thread = threading.Thread(target=leave.wait)
            thread.start()
            found = compare(before, before, sampler.held())
        del hidden, hidden_lists
        leave.set()
        thread.join()
        timer.cancel()
        task.cancel()

    shown = {each.name: each.after - each.before for each in found}
    for name, more in (
        ("server._live._by_id", 1),
        ("engine._book._by_id", 1),
        ("engine._book._admission._idle", 1),
        ("wheelpit.server.sse[]", 2),
        ("files", 1),
        ("threads", 1),
        ("task Event.wait", 1),
        ("wheelpit.engine.reservation.Reservation", 1),
    ):
        assert shown.get(name) == more, f"{name}: {shown}"
    assert any("print" in name for name in shown if name.startswith("timer"))
    assert any(name.endswith("._counts") and more == 1000 for name, more in shown.items())
    assert shown["builtins.list"] > OBJECT_SLACK


LOG = """\
INFO 12:00:00 request cmpl-stream-1-0: length, 5 prompt + 5 output tokens in 1.0 s
INFO 12:00:00 request chatcmpl-burst-2: refused (queue_full)
INFO 12:00:01 request cmpl-whole-3-0: stop, 5 prompt + 5 output tokens in 1.0 s
INFO 12:00:01 request cmpl-whole-3-1: abort (timeout), 5 prompt + 0 output tokens in 1.0 s
WARNING 12:00:01 request cmpl-stream-1-0 runs alone for now
"""


def test_the_log_must_have_each_request_once() -> None:
    record = Record(answered_ids={"stream-1", "burst-2", "whole-3"})
    assert log_faults(LOG, record) == []
    assert log_faults(LOG + LOG.splitlines()[2], record) == ["whole-3-0 was reported 2 times"]
    record.answered_ids.add("late-4")
    assert log_faults(LOG, record) == ["late-4 was not reported"]
    failure = "Traceback (most recent call last):\nKeyError: 'x'\n"
    assert log_faults(LOG + failure, Record()) == ["the server has met with KeyError: 'x'"]


def chunk(text: str, finish_reason: str | None = None, *token_ids: int) -> bytes:
    reason = "null" if finish_reason is None else f'"{finish_reason}"'
    return (
        f'data: {{"choices":[{{"index":0,"text":"{text}","token_ids":{list(token_ids)},'
        f'"finish_reason":{reason}}}]}}'
    ).encode()


DONE = b"data: [DONE]"
RIGHT = (chunk("a", None, 5), chunk("b", "length", 6), DONE)


def answer(*events: bytes) -> Answer:
    read = Answer()
    for event in events:
        read.add_event(event)
    return read


def test_a_right_answer_is_right() -> None:
    right = answer(*RIGHT)
    assert answer(b": keep-alive", *RIGHT).compare(right, may_be_cut=False) == "complete"
    cut = answer(chunk("a", None, 5), chunk("", "abort"), DONE)
    assert cut.compare(right, may_be_cut=True) == "abort"


@pytest.mark.parametrize(
    "events",
    [
        (),
        RIGHT[:2],
        (RIGHT[0], DONE),
        (*RIGHT, DONE),
        (*RIGHT[:2], RIGHT[1], DONE),
        (RIGHT[0], *RIGHT),
        (chunk("a", None, 7), *RIGHT[1:]),
        (chunk("x", None, 5), *RIGHT[1:]),
        (RIGHT[0], chunk("b", "stop", 6), DONE),
        (RIGHT[0], chunk("", "abort"), DONE),
        (RIGHT[0], b'data: {"error": {"message": "sorry"}}', DONE),
    ],
)
def test_a_wrong_answer_is_a_broken_promise(events: tuple[bytes, ...]) -> None:
    with pytest.raises(BrokenPromiseError):
        answer(*events).compare(answer(*RIGHT), may_be_cut=False)


def test_events_come_in_order_each_once() -> None:
    numbered = NumberedEvents()
    for event in (b"id: 1\ndata: x", b": keep-alive", b"id: 2\ndata: y"):
        numbered.check(event)
    for event in (b"id: 2\ndata: y", b"id: 4\ndata: y", b"data: y"):
        with pytest.raises(BrokenPromiseError):
            numbered.check(event)
