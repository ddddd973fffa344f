"""A model whose keys and values can be inspected: the oracle of the scheduler's tests.

At each position it "caches" a fingerprint of all tokens up to there (and of the salt, so that a
leak between salts shows). Running a batch first writes the slots of the tokens to compute, then
demands that every position of each sequence's context is found in the sequence's blocks. The next
token is a function of the last fingerprint. So reading a block that was evicted, preempted,
overwritten, never computed or computed for other tokens fails at once, in the step that does it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from wheelpit.config import CacheConfig, SchedulerConfig
from wheelpit.request import SamplingParams
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.deadlines import NO_DEADLINES, Deadlines
from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.scheduling.scheduler import Scheduler
from wheelpit.scheduling.sequence import Sequence

VOCAB_SIZE = 12
BLOCK_SIZE = 4
"""Of schedulers from make_scheduler."""


def make_sequence(
    request_id: str,
    prompt: list[int],
    params: SamplingParams | None = None,
    *,
    max_tokens: int = 4,
    eos_token_ids: frozenset[int] = frozenset(),
    primary_eos_token_id: int | None = None,
    priority: int = 0,
    arrival_s: float = 0.0,
    cache_salt: str | None = None,
    tenant: str = "",
    deadlines: Deadlines = NO_DEADLINES,
) -> Sequence:
    return Sequence(
        request_id=request_id,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        params=params or SamplingParams(max_tokens=max_tokens),
        max_tokens=max_tokens,
        seed=0,
        eos_token_ids=eos_token_ids,
        primary_eos_token_id=primary_eos_token_id,
        priority=priority,
        arrival_s=arrival_s,
        cache_salt=cache_salt,
        tenant=tenant,
        deadlines=deadlines,
    )


def fingerprints(token_ids: list[int], salt: str | None) -> list[int]:
    """Return for each position a number that stands for all tokens up to it."""
    current = zlib.crc32(repr(salt).encode())
    found = []
    for token_id in token_ids:
        current = zlib.crc32(token_id.to_bytes(8, "little"), current)
        found.append(current)
    return found


def next_token(token_ids: list[int]) -> int:
    return fingerprints(token_ids, None)[-1] % VOCAB_SIZE


def score(token_ids: list[int], position: int) -> TokenLogprobs:
    """Score the token at position, given those before it."""
    context = fingerprints(token_ids[:position], None)[-1]
    return TokenLogprobs([token_ids[position]], [-float(context % 1000)], [1])


def generate(sequence: Sequence, max_num_tokens: int) -> tuple[list[int], str, int | None]:
    """Generate alone, without a cache: (output tokens, finish reason, stop reason)."""
    params, token_ids = sequence.params, list(sequence.token_ids[: sequence.num_prompt_tokens])
    output: list[int] = []
    while True:
        token_id = next_token(token_ids)
        token_ids.append(token_id)
        output.append(token_id)
        may_stop = len(output) >= params.min_tokens
        if may_stop and token_id in sequence.eos_token_ids:
            is_primary = token_id == sequence.primary_eos_token_id
            return output, "stop", None if is_primary else token_id
        if may_stop and token_id in (params.stop_token_ids or ()):
            return output, "stop", token_id
        if len(output) == sequence.max_tokens or len(token_ids) == max_num_tokens:
            return output, "length", None


@dataclass(frozen=True)
class Launched:
    """A step in flight: the block tables are those at its launch, as on a device."""

    batch: ScheduledBatch
    tables: list[list[int]]
    token_ids: list[list[int]]


class CheckedModel:
    """The cache memory and the forward pass over it."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.memory: list[int | None] = [None] * (num_blocks * block_size)

    def launch(self, batch: ScheduledBatch) -> Launched:
        sequences = [scheduled.sequence for scheduled in batch.sequences]
        return Launched(
            batch,
            [list(sequence.block_ids) for sequence in sequences],
            [list(sequence.token_ids) for sequence in sequences],
        )

    def run(self, launched: Launched) -> list[SampledToken]:
        for work in zip(launched.batch.sequences, launched.tables, launched.token_ids, strict=True):
            self._write(*work)
        return [
            self._answer(*work)
            for work in zip(
                launched.batch.sequences, launched.tables, launched.token_ids, strict=True
            )
        ]

    def _slot(self, table: list[int], position: int) -> int:
        return table[position // self.block_size] * self.block_size + position % self.block_size

    def _write(self, scheduled: ScheduledSequence, table: list[int], token_ids: list[int]) -> None:
        marks = fingerprints(token_ids, scheduled.sequence.cache_salt)
        for position in range(scheduled.start, scheduled.start + scheduled.num_tokens):
            self.memory[self._slot(table, position)] = marks[position]

    def _answer(
        self, scheduled: ScheduledSequence, table: list[int], token_ids: list[int]
    ) -> SampledToken:
        sequence, end = scheduled.sequence, scheduled.start + scheduled.num_tokens
        marks = fingerprints(token_ids, sequence.cache_salt)
        for position in range(end):
            assert self.memory[self._slot(table, position)] == marks[position], (
                f"{sequence.request_id}: position {position} is not in its block"
            )
        assert scheduled.samples == (end == len(token_ids))
        prompt_logprobs: tuple[TokenLogprobs, ...] = ()
        if sequence.params.prompt_logprobs is not None:
            last = min(end, sequence.num_prompt_tokens - 1)
            prompt_logprobs = tuple(
                score(token_ids, position + 1) for position in range(scheduled.start, last)
            )
        if not scheduled.samples:
            return SampledToken(prompt_logprobs=prompt_logprobs)
        return SampledToken(next_token(token_ids), prompt_logprobs=prompt_logprobs)


def run_to_end(
    scheduler: Scheduler, model: CheckedModel, max_steps: int = 1000
) -> dict[str, list[int]]:
    """Step until nothing is left; returns the output tokens by request id."""
    tokens: dict[str, list[int]] = {}
    for _ in range(max_steps):
        if not scheduler.has_work:
            return tokens
        for output in step(scheduler, model):
            tokens.setdefault(output.sequence.request_id, []).extend(output.token_ids)
    raise AssertionError(f"still working after {max_steps} steps")


def step(scheduler: Scheduler, model: CheckedModel):
    """Do one whole step, checked before and after."""
    batch = scheduler.schedule(0.0)
    scheduler.check()
    outputs = scheduler.update(batch, model.run(model.launch(batch)), 0.0)
    scheduler.check()
    return outputs


def make_scheduler(num_blocks=32, max_model_len=64, *, prefix=True, seats=4, budget=32, **config):
    """Build a small scheduler and the model to go with it."""
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=seats, max_num_batched_tokens=budget, **config),
        CacheConfig(block_size=BLOCK_SIZE, enable_prefix_caching=prefix),
        num_blocks,
        max_model_len,
    )
    return scheduler, CheckedModel(num_blocks, BLOCK_SIZE)


def shape(batch):
    """Say what is scheduled: {request id: (start, tokens, samples)}."""
    return {
        item.sequence.request_id: (item.start, item.num_tokens, item.samples)
        for item in batch.sequences
    }


def complete(scheduler, model, batch):
    """Compute and take in a batch that was scheduled before."""
    outputs = scheduler.update(batch, model.run(model.launch(batch)), 0.0)
    scheduler.check()
    return outputs
