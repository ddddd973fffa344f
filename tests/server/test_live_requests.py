"""LiveRequest by itself: what is ended at which moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wheelpit.engine.reservation import Reservation
from wheelpit.errors import EngineGenerateError, ValidationError
from wheelpit.request import SamplingParams
from wheelpit.server.auth import ANYBODY, Principal
from wheelpit.server.errors import ClientGoneError, UnknownRequestError
from wheelpit.server.live_requests import LiveRequest, LiveRequests


class Submitted:
    """A request that only knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class SlowEngine:
    """Takes a request when it is told to, and remembers what was given back, and why."""

    def __init__(self) -> None:
        self.may_take = asyncio.Event()
        self.submitted: list[Submitted] = []
        self.released: list[tuple[str, BaseException | None]] = []

    async def add_request(self, *arguments: Any, **options: Any) -> Submitted:
        await self.may_take.wait()
        self.submitted.append(Submitted())
        return self.submitted[-1]

    def release(self, reservation: Reservation, error: BaseException | None = None) -> None:
        self.released.append((reservation.request_id, error))


def make(engine: SlowEngine, num_prompts: int = 1, owner: Principal = ANYBODY) -> LiveRequest:
    reservations = [
        Reservation(f"cmpl-x-{index}", number=index, arrival_s=0.0, num_tokens=1)
        for index in range(num_prompts)
    ]
    return LiveRequest(engine, "cmpl-x", owner, reservations)  # type: ignore[arg-type]


async def test_one_that_is_cancelled_while_the_engine_takes_it_is_closed_at_once() -> None:
    engine = SlowEngine()
    live = make(engine)
    submitting = asyncio.create_task(live.submit(0, [5], SamplingParams()))
    await asyncio.sleep(0)
    live.cancel()
    engine.may_take.set()
    await submitting
    assert engine.submitted[0].is_closed


async def test_what_was_submitted_is_closed_and_the_rest_given_back() -> None:
    engine = SlowEngine()
    engine.may_take.set()
    live = make(engine, 2)
    requests = LiveRequests()
    with requests.hold(live):
        await live.submit(0, [5], SamplingParams())
        assert len(requests) == 2
        assert not engine.submitted[0].is_closed
    assert engine.submitted[0].is_closed
    assert engine.released == [("cmpl-x-1", None)]
    assert (len(requests), requests.engine_ids) == (0, [])
    with pytest.raises(UnknownRequestError):
        requests.cancel("cmpl-x", ANYBODY)


@pytest.mark.parametrize(
    "error", [ValidationError("bad"), EngineGenerateError("broken"), ClientGoneError("gone")]
)
async def test_the_engine_is_told_why_unless_the_client_has_left(error: Exception) -> None:
    """Who left is no fault of anybody: the request counts as aborted."""
    engine = SlowEngine()
    with pytest.raises(type(error)), LiveRequests().hold(make(engine)):
        raise error
    expected = None if isinstance(error, ClientGoneError) else error
    assert engine.released[0] == ("cmpl-x-0", expected)


async def test_a_task_that_is_cancelled_gives_its_places_back() -> None:
    """As a server does to those that are left at its end."""
    engine, requests = SlowEngine(), LiveRequests()

    async def serve() -> None:
        with requests.hold(make(engine)):
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    assert len(requests) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.released == [("cmpl-x-0", None)]
    await requests.wait_until_idle()
