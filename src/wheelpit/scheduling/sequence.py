"""One request's progress inside the engine. Written only by Scheduler; the runner reads it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from wheelpit.request import SamplingParams
from wheelpit.scheduling.deadlines import NO_DEADLINES, Deadlines

if TYPE_CHECKING:
    from wheelpit.scheduling.logprobs import TokenLogprobs

Rank: TypeAlias = tuple[float, ...]


class SequenceStatus(enum.Enum):
    """Where a sequence is.

    WAITING ──schedule──> RUNNING ──update──> FINISHED
       ^                     │
       └──────preempt────────┘        (abort ends it from either state)
    """

    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(eq=False, slots=True, weakref_slot=True, kw_only=True)
class Sequence:
    """A request as the scheduler tracks it; its identity is the object.

    The gap between `num_computed_tokens` (keys and values are in the cache) and `num_tokens` is
    the work left to do: prefill, chunked prefill, recompute after a preemption and decode are all
    steps that close a part of it. A sequence may be added with output tokens (more token_ids than
    num_prompt_tokens): it goes on from there.
    """

    request_id: str
    token_ids: list[int]
    """Prompt, then every sampled token."""
    num_prompt_tokens: int
    params: SamplingParams
    eos_token_ids: frozenset[int] = frozenset()
    """Tokens that end the sequence; empty under ignore_eos."""
    primary_eos_token_id: int | None = None
    """The one of them that is the tokenizer's own: ending with it has no stop reason."""
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    max_tokens: int
    """Resolved: num_prompt_tokens + max_tokens <= max_model_len."""
    seed: int
    """Resolved: the noise of position p is a pure function of (seed, p, token id)."""
    priority: int = 0
    arrival_s: float = 0.0
    cache_salt: str | None = None
    """Sequences share cached blocks only with those of the same salt."""
    tenant: str = ""
    deadlines: Deadlines = NO_DEADLINES

    status: SequenceStatus = SequenceStatus.WAITING
    rank: Rank = ()
    """Smaller goes first; given by the policy."""
    number: int = 0
    """Its place in the order of adding."""
    added_s: float = 0.0
    first_scheduled_s: float | None = None
    num_computed_tokens: int = 0
    num_cached_tokens: int | None = None
    """Prompt tokens found in the prefix cache when first scheduled; None before that."""
    num_preemptions: int = 0
    num_charged_tokens: int | None = None
    """What its tenant was charged when it first started; None before that."""
    block_ids: list[int] = field(default_factory=list)
    block_names: list[bytes] = field(default_factory=list)
    """The names of its first full blocks (see prefix_cache.py), as far as they were needed."""
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Collected until the first output takes them along."""
    has_output: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def queue_s(self) -> float | None:
        """Seconds between adding and first scheduling it; None before that."""
        return None if self.first_scheduled_s is None else self.first_scheduled_s - self.added_s

    @property
    def is_finished(self) -> bool:
        return self.status is SequenceStatus.FINISHED
