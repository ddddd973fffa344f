"""Requests of every kind and every end, whose right answers are known: the load of `soak.py`.

Every request is one of some cases, which were answered once while nothing was wrong. Greedy and
seeded answers in float32 depend neither on their batch nor on the engines' deaths, so each must be
answered with the same tokens again; who is cut short must get the beginning of them.
"""

import asyncio
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from itertools import count

from soak_cases import PLACES, WRONG, Body, Case
from soak_client import PATIENCE_S, Answer, BrokenPromiseError, Exchange, NumberedEvents

MAX_IN_FLIGHT = 64
"""On a machine too busy for the rate, no more than these wait."""


@dataclass(slots=True)
class Record:
    """What came of it. Written by `Traffic` only."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind, how it ended) of each client that was sent out."""
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept."""
    answered_ids: set[str] = field(default_factory=set)
    """Requests that were read, for certain. Who left may have left before that."""


class Traffic:
    """Sends clients of all kinds to one server."""

    def __init__(self, url: str, cases: list[Case], seed: int) -> None:
        self._url = url
        self._cases = cases
        self._right: dict[int, Answer] = {}
        self._draw = random.Random(seed)
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self.record = Record()

    # --- how much

    async def learn(self) -> None:
        """Ask each case once while nothing goes wrong."""

        seats = asyncio.Semaphore(8)

        async def ask(index: int) -> None:
            request_id = self._new_id("learn")
            async with (
                seats,
                asyncio.timeout(PATIENCE_S),
                self._send(index, request_id) as exchange,
            ):
                if await exchange.read_head() != 200:
                    raise BrokenPromiseError(f"{self._cases[index]}: {await exchange.read()!r}")
                self._right[index] = Answer.from_body(await exchange.read())
            self._right[index].check_ended()
            self.record.answered_ids.add(request_id)

        await asyncio.gather(*map(ask, range(len(self._cases))))

    async def run(self, seconds: float, rate_per_s: float) -> None:
        """Send so many a second, at random moments, each of a random kind."""
        names = list(KINDS)
        weights = [weight for _, weight in KINDS.values()]
        ends_s = due_s = time.monotonic()
        ends_s += seconds
        while (due_s := due_s + self._draw.expovariate(rate_per_s)) < ends_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            (name,) = self._draw.choices(names, weights)
            self.start(name)
            while len(self._tasks) >= MAX_IN_FLIGHT:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def run_each(self, times: int) -> None:
        """So many of each kind: whatever can happen has happened after it."""
        for _ in range(times):
            for name in KINDS:
                self.start(name)
        await self.finish()

    def start(self, name: str) -> None:
        task = asyncio.create_task(self._watched(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until each has its end."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _watched(self, name: str) -> None:
        serve, _ = KINDS[name]
        try:
            async with asyncio.timeout(PATIENCE_S):
                end = await serve(self)
        except (BrokenPromiseError, OSError, TimeoutError, ValueError, LookupError) as error:
            end = "broken"
            self.record.broken.append(f"{name}: {error!r}"[:2000])
        self.record.ends[name, end] += 1

    # --- clients that want their answer

    async def whole(self) -> str:
        return await self._whole(self._new_id("whole"), {}, may_be_cut=False)

    async def stream(self) -> str:
        return await self._stream(self._new_id("stream"), {}, may_be_cut=False)

    async def slow_reader(self) -> str:
        request_id = self._new_id("slow")
        return await self._stream(request_id, {}, may_be_cut=False, pause_s=0.02)

    async def late(self) -> str:
        """Has too little time, perhaps; is then told so, with what there is."""
        name = self._draw.choice(("timeout", "queue_timeout", "ttft_timeout"))
        more: Body = {name: self._draw.choice((0.001, 0.05, 0.3, 1.0))}
        ask = self._draw.choice((self._whole, self._stream))
        return await ask(self._new_id("late"), more, may_be_cut=True)

    async def cancelled(self) -> str:
        """Is ended from elsewhere while it waits or runs."""
        request_id = self._new_id("cancelled")
        ask = self._draw.choice((self._whole, self._stream))
        asking = asyncio.create_task(ask(request_id, {}, may_be_cut=True))
        try:
            await asyncio.sleep(self._draw.uniform(0.0, 0.4))
            how = (("POST", "/cancel"), ("DELETE", ""))
            method, rest = self._draw.choice(how)
            path = f"/v1/requests/{request_id}{rest}"
            async with Exchange.of(self._url, method, path) as exchange:
                self._expect(await exchange.read_head(), 200, 404)
                await exchange.read()
            return await asking
        finally:
            asking.cancel()

    async def resumed(self) -> str:
        """Loses its connection again and again, and comes back each time."""
        request_id, index = self._new_id("resumed"), self._a_case()
        answer, numbered = Answer(), NumberedEvents()
        ask = {"x-resumable": "1"}
        exchange = self._send(index, request_id, {"stream": True, "return_token_ids": True}, ask)
        for num_wanted in (*(self._draw.randint(1, 12) for _ in range(5)), math.inf):
            wanted_id = numbered.last_id + num_wanted
            async with exchange, aclosing(exchange.events()) as events:
                if await exchange.read_head() != 200:
                    return await self._refused(exchange, request_id)
                async for event in events:
                    numbered.check(event)
                    answer.add_event(event)
                    if numbered.last_id >= wanted_id:
                        break
            if answer.is_done:
                break
            path = f"/v1/streams/{request_id}"
            last = {"last-event-id": str(numbered.last_id)}
            exchange = Exchange.of(self._url, "GET", path, headers=last)
        self.record.answered_ids.add(request_id)
        return answer.compare(self._right[index], may_be_cut=False)

    async def burst(self) -> str:
        """More than there is room for, at once: some are refused, nobody else ends badly."""
        ends = await asyncio.gather(
            *(self._whole(self._new_id("burst"), {}, may_be_cut=False) for _ in range(40))
        )
        return "refused" if "refused" in ends else "complete"

    # --- clients that leave

    async def leaves_at_once(self) -> str:
        request_id = self._new_id("leaves")
        async with self._send(self._a_case(), request_id, {"stream": self._a_coin()}) as exchange:
            await exchange.flush()
        return "left"

    async def leaves_before_the_end(self) -> str:
        request_id = self._new_id("leaves")
        more: Body = {"stream": self._a_coin(), "max_tokens": 100, "ignore_eos": True}
        async with self._send(self._a_case(), request_id, more) as exchange:
            if not more["stream"]:
                await asyncio.sleep(self._draw.uniform(0.0, 0.5))
                return "left"
            if await exchange.read_head() != 200:
                return await self._refused(exchange, request_id)
            async with aclosing(exchange.events()) as events:
                for _ in range(self._draw.randint(1, 20)):
                    await anext(events, None)
        return "left"

    async def never_comes_back(self) -> str:
        """Asks for a resumable stream, leaves it and forgets it."""
        request_id = self._new_id("forgets")
        ask = {"x-resumable": "1"}
        async with self._send(self._a_case(), request_id, {"stream": True}, ask) as exchange:
            await exchange.flush()
            await asyncio.sleep(self._draw.uniform(0.0, 0.3))
        return "left"

    # --- clients that want nothing, or nonsense

    async def is_wrong(self) -> str:
        """Asks for all that is refused, each time by other names."""
        for method, path, body, status in WRONG:
            named = path.replace("nobody", f"nobody-{self._draw.randrange(10**9)}")
            async with Exchange.of(self._url, method, named, body) as exchange:
                # Where there is no room, nobody looks at what is wrong.
                self._expect(await exchange.read_head(), status, 429)
                await exchange.read()
        return "refused"

    async def looks_around(self) -> str:
        for method, path, body in PLACES:
            async with Exchange.of(self._url, method, path, body) as exchange:
                # An engine that was stopped is not healthy.
                self._expect(await exchange.read_head(), 200, 503 if "health" in path else 200)
                if method != "HEAD":
                    await exchange.read()
        return "complete"

    async def talks_nonsense(self) -> str:
        """Sends something that is no request, or not all of one."""
        nonsense = (
            b"",
            b"\x00\xff" * 50,
            b"GET /v1/mod",
            b"POST /v1/completions HTTP/1.1\r\n\r\n{",
        )
        with suppress(ConnectionError):
            async with Exchange(self._url, self._draw.choice(nonsense)) as exchange:
                await exchange.flush()
                await asyncio.sleep(self._draw.uniform(0.0, 0.2))
        return "left"

    # --- parts

    def _a_case(self) -> int:
        return self._draw.randrange(len(self._cases))

    def _a_coin(self) -> bool:
        return self._draw.random() < 0.5

    def _new_id(self, name: str) -> str:
        return f"{name}-{next(self._numbers)}"

    def _send(
        self,
        index: int,
        request_id: str,
        more: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> Exchange:
        case = self._cases[index]
        body = {"return_token_ids": True, **case.body, **(more or {})}
        return Exchange.of(
            self._url,
            "POST",
            case.path,
            json.dumps(body).encode(),
            {"x-request-id": request_id, **(headers or {})},
        )

    def _drawn(self, more: Body) -> Body:
        """What is drawn anew for each request and changes no token of it."""
        return {
            "return_token_ids": self._a_coin(),
            "priority": self._draw.randint(0, 3),
            "user": f"user-{self._draw.randrange(10**9)}",
            **({"timeout": 600.0} if self._a_coin() else {}),
            **more,
        }

    async def _whole(self, request_id: str, more: Body, *, may_be_cut: bool) -> str:
        index = self._a_case()
        async with self._send(index, request_id, self._drawn(more)) as exchange:
            if await exchange.read_head() != 200:
                return await self._refused(exchange, request_id, is_late=may_be_cut)
            answer = Answer.from_body(await exchange.read())
        self.record.answered_ids.add(request_id)
        return answer.compare(self._right[index], may_be_cut=may_be_cut)

    async def _stream(
        self, request_id: str, more: Body, *, may_be_cut: bool, pause_s: float = 0.0
    ) -> str:
        index = self._a_case()
        answer = Answer()
        drawn = self._drawn({"stream": True, **more})
        async with self._send(index, request_id, drawn) as exchange:
            if await exchange.read_head() != 200:
                return await self._refused(exchange, request_id, is_late=may_be_cut)
            async with aclosing(exchange.events()) as events:
                async for event in events:
                    answer.add_event(event)
                    await asyncio.sleep(pause_s)
        self.record.answered_ids.add(request_id)
        return answer.compare(self._right[index], may_be_cut=may_be_cut)

    async def _refused(self, exchange: Exchange, request_id: str, *, is_late: bool = False) -> str:
        """It has no answer: because there was no room, or no time."""
        body = await exchange.read()
        self.record.answered_ids.add(request_id)
        if exchange.status == 429:
            if not re.fullmatch(r"\d+", exchange.headers.get("retry-after", "")):
                raise BrokenPromiseError(f"a refusal without Retry-After: {exchange.headers}")
            return "refused"
        if exchange.status == 504 and is_late:
            return "late"
        raise BrokenPromiseError(f"status {exchange.status}: {body!r}")

    @staticmethod
    def _expect(status: int, *wanted: int) -> None:
        if status not in wanted:
            raise BrokenPromiseError(f"status {status}, not {wanted}")


Serve = Callable[[Traffic], Awaitable[str]]

KINDS: dict[str, tuple[Serve, float]] = {
    "stream": (Traffic.stream, 6.0),
    "whole": (Traffic.whole, 4.0),
    "resumed": (Traffic.resumed, 2.0),
    "late": (Traffic.late, 2.0),
    "cancelled": (Traffic.cancelled, 1.5),
    "leaves before the end": (Traffic.leaves_before_the_end, 1.5),
    "leaves at once": (Traffic.leaves_at_once, 1.0),
    "never comes back": (Traffic.never_comes_back, 0.5),
    "slow reader": (Traffic.slow_reader, 0.5),
    "is wrong": (Traffic.is_wrong, 1.0),
    "looks around": (Traffic.looks_around, 1.0),
    "talks nonsense": (Traffic.talks_nonsense, 0.5),
    "burst": (Traffic.burst, 0.1),
}
"""Each kind of client, and how often it comes, in proportion."""
