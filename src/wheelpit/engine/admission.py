"""Who may come in: bounds on what waits, decided on arrival, before anything is spent.

A request is reserved a place the moment it arrives, before it is tokenized, and keeps it until it
ends, whatever ends it. Nothing here does I/O or reads a clock: `now` is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wheelpit.config import require
from wheelpit.scheduling.deadlines import NO_DEADLINES, Deadlines
from wheelpit.scheduling.tenants import TenantShare

MAX_RETRY_AFTER_S = 600.0
"""Nobody is told to come back later than that: estimates of longer waits are worth little."""

CHARS_PER_TOKEN = 4
"""A guess, for texts that are not tokenized yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """What one tenant may have of the engine; None is no limit.

    weight: its share under the fair policy, relative to others'. max_running: sequences that run at
    a time. max_queued: sequences that wait beyond the seats free for it. tokens_per_minute: prompt
    and output tokens, on average; a minute's worth may come at once.
    """

    weight: float = 1.0
    max_running: int | None = None
    max_queued: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        TenantShare(self.weight, self.max_running)  # checks both
        queued, rate = self.max_queued, self.tokens_per_minute
        require(queued is None or queued >= 0, "max_queued", queued, "at least 0, or None")
        require(rate is None or rate >= 1, "tokens_per_minute", rate, "at least 1, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine takes on; None is no limit. Change one with `dataclasses.replace`.

    max_num_queued_reqs: sequences that wait beyond the free seats (a request with n > 1 has n).
    max_num_queued_tokens: their prompt tokens. Either bound is passed by a single request that is
    larger than it, if nobody waits.
    default_*_s: the timeouts of requests that have none of their own.
    refuse_late: refuse a request that would, as things stand, start after one of its deadlines.
    default_tenant: the limits of every tenant that `tenants` does not name, of each its own.
    """

    max_num_queued_reqs: int | None = None
    max_num_queued_tokens: int | None = None
    default_timeout_s: float | None = None
    default_queue_timeout_s: float | None = None
    default_ttft_timeout_s: float | None = None
    refuse_late: bool = False
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)
    default_tenant: TenantLimits = TenantLimits()

    def __post_init__(self) -> None:
        bound, tokens = self.max_num_queued_reqs, self.max_num_queued_tokens
        require(bound is None or bound >= 0, "max_num_queued_reqs", bound, "at least 0, or None")
        require(
            tokens is None or tokens >= 1, "max_num_queued_tokens", tokens, "at least 1, or None"
        )
        for name in ("default_timeout_s", "default_queue_timeout_s", "default_ttft_timeout_s"):
            seconds = getattr(self, name)
            is_valid = seconds is None or 0.0 < seconds < float("inf")
            require(is_valid, name, seconds, "positive and finite, or None")

    def of(self, tenant: str) -> TenantLimits:
        """The limits of one tenant."""
        return self.tenants.get(tenant, self.default_tenant)


class Reservation:
    """One request's place, from its arrival to its end.

    `AsyncLLMEngine.reserve` makes it; hand it to `generate`, which sees to everything from its
    first `__anext__` on, or give it back with `AsyncLLMEngine.release`.
    """

    def __init__(
        self,
        request_id: str,
        *,
        arrival_s: float,
        num_tokens: int,
        num_sequences: int = 1,
        tenant: str = "",
        priority: int = 0,
        deadlines: Deadlines = NO_DEADLINES,
    ) -> None:
        """arrival_s: on the monotonic clock. num_tokens: of the prompt, or an estimate of it."""
        self.request_id = request_id
        self.arrival_s = arrival_s
        self.num_tokens = num_tokens
        self.num_sequences = num_sequences
        self.tenant = tenant
        self.priority = priority
        self.deadlines = deadlines


def estimate_tokens(num_chars: int) -> int:
    """About how many tokens a text of this length has."""
    return -(-num_chars // CHARS_PER_TOKEN)
