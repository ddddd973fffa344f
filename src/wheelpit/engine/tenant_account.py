"""What one tenant has in the engine at present, and what it has used of its tokens a minute.

The tokens are a leaky bucket: each token used adds one, and it leaks tokens_per_minute / 60 a
second. A tenant may come in while there is less than one minute's worth in it. So a minute's worth
may be used at once, and no more than that plus the rate in any time.
"""

from __future__ import annotations

from dataclasses import dataclass

from wheelpit.engine.limits import TenantLimits


@dataclass(slots=True)
class TenantAccount:
    """Written only by Admission. as_of_s: when used_tokens was right."""

    limits: TenantLimits
    as_of_s: float
    num_reservations: int = 0
    num_queued: int = 0
    num_running: int = 0
    used_tokens: float = 0.0

    def charge(self, num_tokens: int, now: float) -> None:
        """Count tokens used; a negative number gives back what was charged in vain."""
        if self.limits.tokens_per_minute is not None:
            self.settle(now)
            self.used_tokens = max(0.0, self.used_tokens + num_tokens)

    def settle(self, now: float) -> None:
        """Let out what has leaked since the last time."""
        rate = self.limits.tokens_per_minute
        if rate is None:
            self.used_tokens = 0.0
        else:
            self.used_tokens = max(0.0, self.used_tokens - rate / 60.0 * (now - self.as_of_s))
        self.as_of_s = now

    def over_rate_s(self, now: float) -> float | None:
        """Seconds until there are tokens left; None if there are."""
        rate = self.limits.tokens_per_minute
        self.settle(now)
        if rate is None or self.used_tokens < rate:
            return None
        return (self.used_tokens - rate) / (rate / 60.0)

    @property
    def may_start(self) -> bool:
        """Has it a seat left of its own?"""
        seats = self.limits.max_running
        return seats is None or self.num_running < seats
