"""A recording proxy round any engine: what was asked of it, and what became of each request.

It knows nothing of the engine but `generate(prompt, sampling_params, request_id, ...)`, so it works
round a scripted engine, Wheelpit's and vLLM's alike.

The barrier turns "do these requests run at the same time?" into a question with a yes or a no:
every first output is held back until N requests are live. Requests sent one after the other can
never reach that, whatever the speed of the machine; they go on after a short while.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from labkit.timing import Patience, scaled

BARRIER_S = 0.35
"""How long the first output is held back for others that may never come."""

IDLE_S = 0.5
"""How long a request may take to end after nobody reads it any more."""


@dataclass
class Call:
    """One call of `generate`. Moments are numbers of the probe's own count of events."""

    number: int
    prompt: Any
    sampling_params: Any
    request_id: Any
    options: dict[str, Any]
    loop: asyncio.AbstractEventLoop | None = None
    """The loop that iterates it; None while nobody has."""
    outputs: list[Any] = field(default_factory=list)
    started: int | None = None
    ended: int | None = None
    ending: str | None = None
    """finished, closed, cancelled or error; None while it runs."""

    @property
    def texts(self) -> list[str]:
        """What each output said so far."""
        return [output.outputs[0].text for output in self.outputs]


class Probe:
    """Stands before an engine. Written only by the coroutines that iterate its streams."""

    def __init__(self, engine: Any, barrier: int = 0) -> None:
        """barrier: how many requests must be live before the first output of any is passed on."""
        self._engine = engine
        self._barrier = barrier
        self._is_barrier_up = barrier > 1
        self._is_reached = False
        self.calls: list[Call] = []
        self.num_live = 0
        self.peak = 0
        self.num_events = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: Any, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Record the call and return its stream; the engine's own starts when it is iterated."""
        call = Call(len(self.calls) + 1, prompt, sampling_params, request_id, options)
        self.calls.append(call)
        return self._stream(call)

    # What a wrong call is answered with should read like the real engine's answer.
    generate.__qualname__ = "AsyncLLMEngine.generate"

    @property
    def ids(self) -> list[Any]:
        return [call.request_id for call in self.calls]

    @property
    def loops(self) -> set[asyncio.AbstractEventLoop]:
        return {call.loop for call in self.calls if call.loop is not None}

    async def wait_idle(self, *, collects_garbage: bool = False) -> bool:
        """Wait until no request is live; False if some still are after half a second.

        collects_garbage: once, after a fifth of that.
        """
        patience, short = Patience(scaled(IDLE_S)), Patience(scaled(IDLE_S / 5))
        while self.num_live and not patience.is_over():
            await asyncio.sleep(0.005)
            if collects_garbage and short.is_over():
                gc.collect()
                collects_garbage = False
        return self.num_live == 0

    async def _stream(self, call: Call) -> AsyncGenerator[Any, None]:
        call.loop = asyncio.get_running_loop()
        call.started = self._count()
        self.num_live += 1
        self.peak = max(self.peak, self.num_live)
        if self.num_live >= self._barrier and len(self.loops) == 1:
            self._is_reached = True
        try:
            source = self._engine.generate(
                call.prompt, call.sampling_params, call.request_id, **call.options
            )
            async with contextlib.aclosing(source) as outputs:
                async for output in outputs:
                    if not call.outputs:
                        await self._hold()
                    call.outputs.append(output)
                    self._count()
                    yield output
            call.ending = "finished"
        except GeneratorExit:
            call.ending = "closed"
            raise
        except asyncio.CancelledError:
            call.ending = "cancelled"
            raise
        except BaseException:
            call.ending = "error"
            raise
        finally:
            self.num_live -= 1
            call.ended = self._count()

    async def _hold(self) -> None:
        """Keep a first output until enough requests are live."""
        # With several loops there is no barrier: the mistake is found by looking at `loops`.
        if not self._is_barrier_up or len(self.loops) > 1:
            return
        patience = Patience(scaled(BARRIER_S))
        while self._is_barrier_up and not self._is_reached:
            await asyncio.sleep(0.005)
            if patience.is_over():
                self._is_barrier_up = False

    def _count(self) -> int:
        self.num_events += 1
        return self.num_events
