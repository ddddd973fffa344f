"""The whole engine but its processes, in virtual time: admission, book, core, a fake runner.

Messages cross at once, encoded and decoded as on the socket. A step lasts as long as its runner
says; requests are checked and tokenized already.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tests.fakes import FakeRunner, ManualClock, ManualTimers
from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.engine.admission import Admission, Limits
from wheelpit.engine.core import EngineCore
from wheelpit.engine.messages import Abort, AddRequest, StepOutput
from wheelpit.engine.request_book import RequestBook
from wheelpit.engine.request_state import RequestState
from wheelpit.engine.stats import FinishedRequest, StepRecord
from wheelpit.request import SamplingParams
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch
from wheelpit.scheduling.deadlines import Deadlines


class TimedRunner(FakeRunner):
    """Each step takes `step_s` of a ManualClock; remembers when each sequence was computed."""

    def __init__(self, clock: ManualClock, *, step_s: float, **options: Any) -> None:
        super().__init__(step_s=step_s, **options)
        self.clock = clock
        self.runs: list[tuple[str, float]] = []

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        self.runs += [(each.sequence.request_id, self.clock.now) for each in batch.sequences]
        self.clock.advance(self.step_s)
        return super().run(batch)


class Watcher:
    """A StatLogger that keeps everything."""

    def __init__(self) -> None:
        self.finished: list[FinishedRequest] = []

    def on_step(self, record: StepRecord) -> None: ...

    def on_request_finished(self, record: FinishedRequest) -> None:
        self.finished.append(record)


class VirtualEngine:
    """Submit, step, abort, look."""

    def __init__(
        self,
        *,
        step_s: float = 1.0,
        num_blocks: int = 64,
        limits: Limits | None = None,
        max_num_batched_tokens: int = 64,
        **scheduler: Any,
    ) -> None:
        self.clock = ManualClock(100.0)
        self.timers = ManualTimers(self.clock)
        self.watcher = Watcher()
        config = EngineConfig(
            model=ModelOptions(folder="", max_model_len=256),
            cache=CacheConfig(enable_prefix_caching=False),
            scheduler=SchedulerConfig(
                **{
                    "max_num_seqs": 2,
                    "max_num_batched_tokens": max_num_batched_tokens,
                    "max_decode_slowdown": 0.0,
                    **scheduler,
                }
            ),
        )
        self.runner = TimedRunner(self.clock, step_s=step_s, num_blocks=num_blocks)
        self.core = EngineCore(config, self.runner, self.clock)
        self.admission = Admission(limits or Limits(), config.scheduler)
        self.sent: list[AddRequest | Abort] = []
        self.book = RequestBook(self.admission, self.clock, [self.watcher], self.timers)
        self.book.open_engine(self._send)
        self._num_requests = 0

    def submit(
        self,
        prompt: list[int] | None = None,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        ttft_timeout: float | None = None,
        tenant: str = "",
        request_id: str = "r",
        **params: Any,
    ) -> RequestState:
        """Reserve a place and enter the book. OverloadedError."""
        now = self.clock.now
        token_ids = prompt or [5, 6, 7]
        sampling = SamplingParams(**{"max_tokens": 200, "temperature": 1.0, **params})

        def moment(seconds: float | None) -> float | None:
            return None if seconds is None else now + seconds

        reservation = self.admission.reserve(
            request_id,
            now,
            num_tokens=len(token_ids),
            num_sequences=sampling.n,
            tenant=tenant,
            deadlines=Deadlines(moment(timeout), moment(queue_timeout), moment(ttft_timeout)),
        )
        self._num_requests += 1
        messages = [
            AddRequest(
                f"{index}_{self._num_requests}",
                token_ids,
                sampling,
                sampling.max_tokens or 1,
                seed=0,
                deadlines=reservation.deadlines,
                arrival_s=reservation.arrival_s,
                tenant=tenant,
            )
            for index in range(sampling.n)
        ]
        state = RequestState(reservation, None, messages, sampling, None)
        self.book.add(state)
        return state

    def step(self, number: int = 1) -> None:
        """As the worker does: end what is over, then compute."""
        for _ in range(number):
            expired = self.core.expire()
            if expired is not None:
                self._receive(expired)
            self._receive(self.core.step())
            self.timers.advance(0.0)

    def run(self) -> None:
        """Step until the engine has nothing to do."""
        while self.core.has_work:
            self.step()

    def assert_idle(self) -> None:
        """Nothing of any request is left on either side."""
        stats = self.core.stats()
        assert (stats.num_running, stats.num_waiting, stats.kv_cache_usage) == (0, 0, 0.0)
        assert not self.core.has_work
        admission = self.admission
        assert (admission.num_queued, admission.num_queued_tokens) == (0, 0)
        assert (admission.num_running, admission.num_accounts) == (0, 0)
        book = self.book
        left = [book._requests, book._by_id, book._sequences, book._places, self.timers]
        assert [len(each) for each in left] == [0] * 5

    def _send(self, message: AddRequest | Abort) -> None:
        self.sent.append(message)
        copy = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=AddRequest | Abort)
        if isinstance(copy, AddRequest):
            self.core.add(copy)
        else:
            self.core.abort(copy.request_ids)

    def _receive(self, step: StepOutput) -> None:
        self.book.on_step(msgspec.msgpack.decode(msgspec.msgpack.encode(step), type=StepOutput))
