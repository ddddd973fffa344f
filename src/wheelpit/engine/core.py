"""One step of the engine: schedule, run, update. No sockets, no clock of its own, no asyncio.

Called by `engine/worker.py` in the engine process and by `LLM` in the caller's. It owns the
scheduler and the runner, and it is the boundary at which one request's fault stays that
request's: if a step raises, its sequences are run again one by one and only those that raise
alone end, with finish_reason "error".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from wheelpit.config import ComputePlan, EngineConfig
from wheelpit.engine.messages import AddRequest, EngineStats, StepBegins, StepOutput, TokenOutput
from wheelpit.errors import ValidationError
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch
from wheelpit.scheduling.outputs import SequenceOutput
from wheelpit.scheduling.scheduler import Scheduler
from wheelpit.scheduling.sequence import Sequence
from wheelpit.scheduling.tenants import TenantShare

log = logging.getLogger(__name__)

ANNOUNCED_TOKENS = 256
"""Steps of fewer tokens are too short to be taken for a hang."""

QUEUE_INTERVAL_S = 0.5
"""How often the front end hears who waits, in order."""


class Runner(Protocol):
    """Turns a decision into tokens: ModelRunner, or a fake in tests and benchmarks."""

    num_blocks: int
    block_size: int
    vocab_size: int
    dtype: str
    device: str
    forward_s: float

    @property
    def compute_plan(self) -> ComputePlan | None:
        """How it computes, for the engine that may replace this one; None is nothing to keep."""
        ...

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        """Compute the batch and answer in its order. Safe to repeat after an exception.

        Raises MemoryError if a smaller batch might do.
        """
        ...


class EngineCore:
    """Scheduler and runner of one model. Used by one thread."""

    def __init__(
        self,
        config: EngineConfig,
        runner: Runner,
        clock: Callable[[], float],
        announce: Callable[[StepBegins], None] = lambda message: None,
    ) -> None:
        """announce: told before a step that starts sequences or computes many tokens."""
        self._announce = announce
        self.config = config
        self.runner = runner
        self._clock = clock
        self._scheduler = Scheduler(
            config.scheduler, config.cache, runner.num_blocks, config.model.max_model_len
        )
        self._pending: list[TokenOutput] = []
        self._num_steps = 0
        self._num_scheduled_tokens = 0
        self._run_s = 0.0
        self._step_s = 0.0
        self._next_queue_s = 0.0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._pending)

    def add(self, request: AddRequest) -> None:
        """Queue a request. One that cannot be served ends with "error" in the next output."""
        sequence = Sequence(
            request_id=request.request_id,
            token_ids=request.prompt_token_ids + request.output_token_ids,
            num_prompt_tokens=len(request.prompt_token_ids),
            params=request.params,
            eos_token_ids=frozenset(request.eos_token_ids),
            primary_eos_token_id=request.primary_eos_token_id,
            bad_words_token_ids=tuple(tuple(word) for word in request.bad_words_token_ids),
            max_tokens=request.max_tokens,
            seed=request.seed,
            priority=request.priority,
            arrival_s=request.arrival_s,
            cache_salt=request.cache_salt,
            tenant=request.tenant,
            deadlines=request.deadlines,
            has_output=bool(request.output_token_ids),
        )
        try:
            self._scheduler.add(sequence, self._clock())
        except ValidationError as error:
            self._pending.append(
                TokenOutput(request.request_id, [], finish_reason="error", error=str(error))
            )

    def abort(self, request_ids: list[str]) -> None:
        """Free these sequences at once, in whatever state they are. Unknown ids are ignored."""
        for request_id in request_ids:
            self._scheduler.abort(request_id)

    def expire(self) -> StepOutput | None:
        """End what has missed a deadline; call before `step`. None if nothing has."""
        expired = self._scheduler.expire(self._clock())
        if not expired:
            return None
        return StepOutput([self._describe(output) for output in expired], self.stats())

    def step(self) -> StepOutput:
        """Advance every scheduled sequence and say what came of it."""
        now = self._clock()
        outputs, self._pending = self._pending, []
        batch = self._scheduler.schedule(now)
        started = [sequence.request_id for sequence in batch.started]
        if batch.sequences:
            if batch.started or batch.num_tokens >= ANNOUNCED_TOKENS:
                self._announce(StepBegins(batch.num_tokens, started))
            before_run = self._clock()
            sampled = self._run(batch)
            self._run_s += self._clock() - before_run
            if sampled is not None:
                for output in self._scheduler.update(batch, sampled, self._clock()):
                    outputs.append(self._describe(output))
            self._num_steps += 1
        self._num_scheduled_tokens = batch.num_tokens
        self._step_s += self._clock() - now
        return StepOutput(
            outputs,
            self.stats(),
            started,
            self._queue(now),
        )

    def _queue(self, now: float) -> list[str] | None:
        """Who waits, in order, if it is time to say so again."""
        if not self._scheduler.num_waiting or now < self._next_queue_s:
            return None
        self._next_queue_s = now + QUEUE_INTERVAL_S
        return [sequence.request_id for sequence in self._scheduler.queue()]

    def set_tenants(self, shares: Mapping[str, TenantShare], default: TenantShare) -> None:
        """Change the weights and seats of tenants."""
        self._scheduler.set_tenants(shares, default)

    def stats(self) -> EngineStats:
        scheduler = self._scheduler.stats()
        return EngineStats(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            kv_cache_usage=scheduler.kv_cache_usage,
            num_steps=self._num_steps,
            num_scheduled_tokens=self._num_scheduled_tokens,
            num_preemptions=scheduler.num_preemptions,
            num_timeouts=scheduler.num_timeouts,
            prefix_cache_queries=scheduler.prefix_cache_queries,
            prefix_cache_hits=scheduler.prefix_cache_hits,
            run_s=self._run_s,
            forward_s=self.runner.forward_s,
            step_s=self._step_s,
        )

    def reset_prefix_cache(self) -> bool:
        """Forget all cached blocks; False while any is in use."""
        return self._scheduler.reset_prefix_cache()

    def _run(self, batch: ScheduledBatch) -> list[SampledToken] | None:
        """Compute the batch; None if it was too much for the memory: the next one is smaller."""
        try:
            return self.runner.run(batch)
        except MemoryError as error:
            if self._scheduler.shrink(batch):
                log.warning("out of memory in a step of %d tokens: %s", batch.num_tokens, error)
                return None
            log.exception("out of memory in the smallest step")
        except Exception:
            # Per-request fault boundary: find whose fault it is by running each alone.
            log.exception("a step of %d sequences failed", len(batch.sequences))
        sampled = []
        for scheduled in batch.sequences:
            try:
                sampled += self.runner.run(ScheduledBatch((scheduled,)))
            except Exception as error:
                log.exception("request %s failed", scheduled.sequence.request_id)
                sampled.append(SampledToken(error=f"{type(error).__name__}: {error}"))
        if all(token.error is not None for token in sampled) and len(sampled) > 1:
            log.error("all %d sequences of the step failed: is the device alive?", len(sampled))
        return sampled

    def _describe(self, output: SequenceOutput) -> TokenOutput:
        sequence = output.sequence
        message = TokenOutput(
            sequence.request_id,
            list(output.token_ids),
            finish_reason=output.finish_reason,
            stop_reason=output.stop_reason,
            logprobs=None if output.logprobs is None else [output.logprobs],
            error=output.error,
        )
        if output.is_first:
            message.num_cached_tokens = sequence.num_cached_tokens
            if sequence.first_scheduled_s is not None:
                message.queue_s = sequence.first_scheduled_s - sequence.added_s
            if output.token_ids and sequence.params.prompt_logprobs is not None:
                # Empty for a prompt of one token: nothing predicts that.
                message.prompt_logprobs = list(output.prompt_logprobs)
        if output.finish_reason is not None:
            message.num_preemptions = sequence.num_preemptions
        return message
