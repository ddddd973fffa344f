"""An engine that follows a script: which text, which error, which pause, in what order.

It has the methods of AsyncLLMEngine that the labs use and yields objects with the same attributes,
but it computes nothing, so a test decides what happens when:

    engine = ScriptedEngine({"Hello": [Say("Hel"), Wait("go"), Say("lo")]})
    ...                   # somebody iterates engine.generate("Hello", params, "req-1")
    engine.open("go")     # only now does "lo" come

Used from one event loop at a time; written only by the coroutines of that loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from labkit.timing import monotonic


@dataclass(frozen=True)
class Say:
    """One output, with these characters more than the one before; "" brings nothing new."""

    text: str


@dataclass(frozen=True)
class Wait:
    """Go on when the test opens this gate."""

    gate: str


@dataclass(frozen=True)
class Start:
    """The engine takes the request out of its queue; without this step, the first output does."""


@dataclass(frozen=True)
class Pause:
    """Let this time go by, as a slow model does."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """End the request with this exception."""

    error: Exception


@dataclass(frozen=True)
class Hang:
    """Never go on."""


Step: TypeAlias = Say | Start | Wait | Pause | Fail | Hang


class EngineFault(RuntimeError):
    """What a scripted engine fails with."""


@dataclass
class CompletionOutput:
    """The completion of a request, with the real one's attributes."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    cumulative_logprob: float | None = None
    logprobs: None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass
class Metrics:
    """When things happened, on the engine's clock: comparable with one another only."""

    queued_ts: float
    scheduled_ts: float = 0.0
    """0 while it never was scheduled."""


@dataclass
class RequestOutput:
    """The state of a request at one moment, with the real one's attributes."""

    request_id: str
    prompt: Any
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: None = None
    metrics: Metrics | None = None


@dataclass
class _Live:
    """One request between its first step and its end."""

    request_id: Any
    metrics: Metrics | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_aborted: bool = False


class ScriptedEngine:
    """Replays a script for each prompt; a prompt without one gets a short answer of its own."""

    def __init__(
        self, scripts: Mapping[str, Sequence[Step]] | None = None, with_metrics: bool = True
    ) -> None:
        """with_metrics: the outputs have them, as those of an engine with statistics."""
        self._with_metrics = with_metrics
        self._scripts = dict(scripts or {})
        self._open: set[str] = set()
        self._live: list[_Live] = []
        self.num_started = 0
        self.is_shut_down = False

    @property
    def num_live(self) -> int:
        return len(self._live)

    def open(self, gate: str) -> None:
        """Let every request go on that waits at this gate, now or later."""
        self._open.add(gate)
        for request in self._live:
            request.wake.set()

    async def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Yield what the script says. Nothing happens before the first `__anext__`."""
        request = _Live(request_id, Metrics(_engine_clock()) if self._with_metrics else None)
        self._live.append(request)
        self.num_started += 1
        try:
            steps = self._steps(prompt)
            kind = getattr(getattr(sampling_params, "output_kind", None), "name", "CUMULATIVE")
            text = ""
            for place, step in enumerate(steps):
                await asyncio.sleep(0)
                await self._wait(step, request)
                if request.is_aborted:
                    yield _output(request, prompt, text, text, kind, "abort")
                    return
                if isinstance(step, Start | Say) and request.metrics is not None:
                    request.metrics.scheduled_ts = request.metrics.scheduled_ts or _engine_clock()
                if isinstance(step, Fail):
                    raise step.error
                if isinstance(step, Say):
                    text += step.text
                    is_last = place == len(steps) - 1
                    if kind != "FINAL_ONLY" or is_last:
                        reason = "stop" if is_last else None
                        yield _output(request, prompt, text, step.text, kind, reason)
            # Requests that share state by mistake are seen only if others run before this one ends.
            await asyncio.sleep(0)
        finally:
            self._live.remove(request)

    async def abort(self, request_id: str) -> None:
        """End a request with what it has; its stream yields one last output."""
        for request in self._live:
            if request.request_id == request_id:
                request.is_aborted = True
                request.wake.set()

    def shutdown(self) -> None:
        self.is_shut_down = True

    def _steps(self, prompt: Any) -> Sequence[Step]:
        # A prompt may be anything, and unhashable, when a learner mixed up the arguments.
        if isinstance(prompt, str) and prompt in self._scripts:
            return self._scripts[prompt]
        return (Say("Answer"), Say(" to "), Say(str(prompt)))

    async def _wait(self, step: Step, request: _Live) -> None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        if isinstance(step, Wait | Hang):
            while not request.is_aborted and not self._is_open(step):
                await request.wake.wait()
                request.wake.clear()

    def _is_open(self, step: Wait | Hang) -> bool:
        return isinstance(step, Wait) and step.gate in self._open


def _engine_clock() -> float:
    return monotonic() + 5000.0


def _output(
    request: _Live, prompt: Any, text: str, new: str, kind: str, reason: str | None
) -> RequestOutput:
    shown = new if kind == "DELTA" else text
    completion = CompletionOutput(0, shown, list(shown.encode()), finish_reason=reason)
    return RequestOutput(
        request.request_id,
        prompt,
        [1, 2, 3],
        [completion],
        finished=reason is not None,
        metrics=request.metrics,
    )
