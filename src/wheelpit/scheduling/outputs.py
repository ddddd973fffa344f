"""What the scheduler reports: one value per sequence and step, and a snapshot of itself."""

from __future__ import annotations

from dataclasses import dataclass

from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.scheduling.sequence import Sequence
from wheelpit.scheduling.stopping import FinishReason


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """What a step brought for one sequence.

    token_ids: the new ones; empty if it ended without any.
    stop_reason: the stop token that ended it, see `stopping.find_stop`, or the deadline that it
    missed.
    logprobs: those of the new token, if asked for.
    prompt_logprobs: on the first output only, if asked for: entry i scores prompt token i + 1.
    is_first: the sequence has had no output before.
    error: why, with finish_reason "error".
    """

    sequence: Sequence
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    is_first: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStats:
    """A snapshot of the scheduler. Counters run from the start.

    num_timeouts: sequences that missed a deadline.
    prefix_cache_queries, prefix_cache_hits: tokens of the sequences that read the cache when
    they first started, and those of them found there.
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    kv_cache_usage: float
    num_preemptions: int
    num_timeouts: int
    prefix_cache_queries: int
    prefix_cache_hits: int
