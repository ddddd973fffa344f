"""A server in virtual time: the real scheduler, a fake runner, and steps that cost what we say.

Nothing sleeps and nothing is measured, so an hour of traffic takes a second and gives the same
figures on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.fakes import FakeRunner
from tests.scheduling.checked_model import make_sequence
from wheelpit.config import CacheConfig, SchedulerConfig
from wheelpit.scheduling.batch import ScheduledBatch
from wheelpit.scheduling.deadlines import Deadlines
from wheelpit.scheduling.outputs import SequenceOutput
from wheelpit.scheduling.scheduler import Scheduler
from wheelpit.scheduling.sequence import Sequence
from wheelpit.scheduling.tenants import TenantShare

BASE_S, DECODE_S, PREFILL_TOKEN_S = 0.0035, 0.00045, 0.00016
"""What a step costs: as measured with the built-in model on two cores."""


@dataclass
class Log:
    """What happened to one request. token_s: when each of its tokens came."""

    sequence: Sequence
    arrival_s: float
    token_s: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    end_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.arrival_s

    @property
    def is_complete(self) -> bool:
        return self.finish_reason in ("stop", "length")


class VirtualServer:
    """Runs arrivals through one scheduler. `logs` has every request, by its id."""

    def __init__(
        self,
        config: SchedulerConfig,
        *,
        num_blocks: int = 1024,
        max_model_len: int = 2048,
        tenants: dict[str, TenantShare] | None = None,
    ) -> None:
        cache = CacheConfig(enable_prefix_caching=False)
        self.scheduler = Scheduler(config, cache, num_blocks, max_model_len)
        self.scheduler.set_tenants(tenants or {}, TenantShare())
        self.runner = FakeRunner(num_blocks=num_blocks)
        self.now = 0.0
        self.step_durations: list[float] = []
        self.step_ends: list[float] = []
        self.logs: dict[str, Log] = {}
        self.num_late_tokens = 0
        """Tokens computed in steps that began after their sequence's deadline."""

    def run(self, arrivals: Iterable[tuple[float, Sequence]], until_s: float = 1e9) -> None:
        """Serve all arrivals (sorted by time) until nothing is left, or the time is over."""
        coming = sorted(arrivals, key=lambda arrival: arrival[0])[::-1]
        while self.now < until_s and (coming or self.scheduler.has_work):
            if not self.scheduler.has_work:
                self.now = max(self.now, coming[-1][0])
            while coming and coming[-1][0] <= self.now:
                arrival_s, sequence = coming.pop()
                sequence.request_id = sequence.request_id or f"r{len(self.logs)}"
                sequence.arrival_s = arrival_s
                self.logs[sequence.request_id] = Log(sequence, arrival_s)
                self.scheduler.add(sequence, self.now)
            self._step()

    def _step(self) -> None:
        self._take(self.scheduler.expire(self.now))
        batch = self.scheduler.schedule(self.now)
        for item in batch.sequences:
            total_s = item.sequence.deadlines.total_s
            if total_s is not None and total_s <= self.now:
                self.num_late_tokens += item.num_tokens
        if batch.sequences:
            duration_s = step_s(batch)
            self.now += duration_s
            self.step_durations.append(duration_s)
            self.step_ends.append(self.now)
            outputs = self.scheduler.update(batch, self.runner.run(batch), self.now)
            self._take(outputs)

    def _take(self, outputs: list[SequenceOutput]) -> None:
        for output in outputs:
            log = self.logs[output.sequence.request_id]
            log.token_s += [self.now] * len(output.token_ids)
            if output.finish_reason is not None:
                assert log.finish_reason is None, "a request has ended twice"
                log.finish_reason, log.stop_reason = output.finish_reason, output.stop_reason
                log.end_s = self.now


def step_s(batch: ScheduledBatch) -> float:
    """Seconds that a step takes."""
    num_decodes = sum(item.num_tokens == 1 for item in batch.sequences)
    num_prefill_tokens = batch.num_tokens - num_decodes
    return BASE_S + DECODE_S * num_decodes + PREFILL_TOKEN_S * num_prefill_tokens


def request(
    num_prompt_tokens: int,
    num_output_tokens: int,
    *,
    request_id: str = "",
    tenant: str = "",
    priority: int = 0,
    deadlines: Deadlines | None = None,
) -> Sequence:
    return make_sequence(
        request_id,
        [5] * num_prompt_tokens,
        max_tokens=num_output_tokens,
        tenant=tenant,
        priority=priority,
        deadlines=deadlines or Deadlines(),
    )
