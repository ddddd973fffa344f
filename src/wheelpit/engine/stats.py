"""What watchers of the engine are told: one record per step, one per request, however it ended.

`AsyncLLMEngine` builds these; metrics and logs consume them. All seconds are of the front end's
monotonic clock. Nothing here is mutated after it was handed out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wheelpit.engine.messages import EngineStats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRequest:
    """One request's life, all its completions together. Every request makes exactly one.

    finish_reason: "stop", "length", "abort", "error" or "refused"; of several completions, the
    last's. A client that left counts as "abort". Times are None where the request did not get that
    far. One that was "refused" cost nothing: its counts are 0, and who measures latencies leaves it
    out.
    """

    request_id: str
    finish_reason: str
    num_prompt_tokens: int
    num_generation_tokens: int
    max_num_generation_tokens: int
    """Of the longest completion."""
    num_cached_tokens: int
    max_tokens: int | None
    n: int
    num_preemptions: int
    e2e_s: float
    queue_s: float | None
    """Waiting to be scheduled the first time."""
    ttft_s: float | None
    """From arrival to the first token."""
    prefill_s: float | None
    """From first scheduled to the first token."""
    decode_s: float | None
    """From the first to the last token."""
    stop_reason: str | None = None
    """With "abort": the deadline that it missed, "timeout", "queue_timeout" or "ttft_timeout".
    With "refused": the reason of its OverloadedError, or "invalid" after a ValidationError."""
    tenant: str = ""

    @classmethod
    def unserved(
        cls, request_id: str, tenant: str, finish_reason: str, stop_reason: str | None, e2e_s: float
    ) -> FinishedRequest:
        """One that ended before the engine heard of it."""
        return cls(
            request_id=request_id,
            finish_reason=finish_reason,
            num_prompt_tokens=0,
            num_generation_tokens=0,
            max_num_generation_tokens=0,
            num_cached_tokens=0,
            max_tokens=None,
            n=1,
            num_preemptions=0,
            e2e_s=e2e_s,
            queue_s=None,
            ttft_s=None,
            prefill_s=None,
            decode_s=None,
            stop_reason=stop_reason,
            tenant=tenant,
        )

    @property
    def inference_s(self) -> float | None:
        """From first scheduled to the last token."""
        if self.prefill_s is None or self.decode_s is None:
            return None
        return self.prefill_s + self.decode_s

    @property
    def time_per_output_token_s(self) -> float | None:
        """Mean gap between tokens after the first."""
        if self.decode_s is None or self.num_generation_tokens < 2:
            return None
        return self.decode_s / (self.num_generation_tokens - 1)


@dataclass(slots=True)
class StepRecord:
    """What one step brought, seen from the front end."""

    engine: EngineStats
    ttfts_s: list[float] = field(default_factory=list)
    itls_s: list[float] = field(default_factory=list)
    """One per sequence that produced tokens after its first."""
    num_prompt_tokens: int = 0
    """Prompt tokens of the requests whose first token came in this step."""
    num_cached_tokens: int = 0
    num_generation_tokens: int = 0


class StatLogger(Protocol):
    """Watches an engine; must be quick and must not raise."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_request_finished(self, record: FinishedRequest) -> None:
        """A request has ended, or was refused: called exactly once for each."""
        ...


class Watchers:
    """The StatLoggers of one engine; one that raises is dropped, and requests go on."""

    def __init__(self, stat_loggers: Sequence[StatLogger]) -> None:
        self._stat_loggers = list(stat_loggers)

    def add(self, logger: StatLogger) -> None:
        self._stat_loggers.append(logger)

    def on_step(self, record: StepRecord) -> None:
        self._tell(lambda logger: logger.on_step(record))

    def on_request_finished(self, record: FinishedRequest) -> None:
        self._tell(lambda logger: logger.on_request_finished(record))

    def _tell(self, message: Callable[[StatLogger], None]) -> None:
        for logger in list(self._stat_loggers):
            try:
                message(logger)
            except Exception:
                log.exception("stat logger %r failed and is removed", logger)
                self._stat_loggers.remove(logger)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEndStats:
    """A snapshot of the whole engine as the front end sees it."""

    num_requests: int
    """Requests not finished yet."""
    num_queued: int = 0
    """Sequences admitted that have never been scheduled: those that the engine has not seen yet are
    among them, those that were preempted are not."""
    num_queued_tokens: int = 0
    """Prompt tokens of those."""
    drain_rate: float | None = None
    """Queued sequences that start in a second when every seat is taken; None while unknown."""
    engine: EngineStats
    num_finished: int
    """Requests that have ended, those that were refused among them."""
    num_prompt_tokens: int
    num_generation_tokens: int

    def log(self) -> None:
        """Write it to the log in one line."""
        log.info(
            "running %d, waiting %d, KV cache %.1f %%, %d requests finished",
            self.engine.num_running,
            self.engine.num_waiting,
            100 * self.engine.kv_cache_usage,
            self.num_finished,
        )


class LoggingStatLogger:
    """Write one INFO line per request and a summary while requests run."""

    def __init__(self, clock: Callable[[], float], interval_s: float = 10.0) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._last_summary = clock()
        self._num_prompt_tokens = 0
        self._num_generation_tokens = 0

    def on_step(self, record: StepRecord) -> None:
        self._num_prompt_tokens += record.num_prompt_tokens
        self._num_generation_tokens += record.num_generation_tokens
        now = self._clock()
        elapsed = now - self._last_summary
        if elapsed < self._interval_s:
            return
        engine = record.engine
        log.info(
            "prompt %.1f tok/s, generation %.1f tok/s, running %d, waiting %d, KV cache %.1f %%",
            self._num_prompt_tokens / elapsed,
            self._num_generation_tokens / elapsed,
            engine.num_running,
            engine.num_waiting,
            100 * engine.kv_cache_usage,
        )
        self._last_summary = now
        self._num_prompt_tokens = self._num_generation_tokens = 0

    def on_request_finished(self, record: FinishedRequest) -> None:
        reason = record.finish_reason
        if record.stop_reason is not None:
            reason += f" ({record.stop_reason})"
        if record.tenant:
            reason += f", tenant {record.tenant}"
        if record.finish_reason == "refused":
            log.info("request %s: %s", record.request_id, reason)
            return
        log.info(
            "request %s: %s, %d prompt + %d output tokens in %.3f s (queue %s, first token %s)",
            record.request_id,
            reason,
            record.num_prompt_tokens,
            record.num_generation_tokens,
            record.e2e_s,
            _seconds(record.queue_s),
            _seconds(record.ttft_s),
        )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"
