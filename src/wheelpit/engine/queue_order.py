"""How many go first: the scheduler's order of the queue, as far as the front end can tell.

The engine process decides; this is for estimates, and knows neither service nor lateness. See
scheduling/policies.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from wheelpit.config import SchedulingPolicy
from wheelpit.engine.tenant_account import TenantAccount

if TYPE_CHECKING:
    from wheelpit.engine.admission import Reservation

Rank = Callable[["Reservation"], tuple[float, ...]]


class QueueOrder:
    """The order of one policy. Keeps nothing."""

    def __init__(self, policy: SchedulingPolicy, ageing_s: float) -> None:
        ranks: Mapping[SchedulingPolicy, Rank] = {
            "fcfs": _by_number,
            "priority": _by_age(ageing_s) if ageing_s else _by_level,
            "deadline": _by_deadline,
            "fair": _by_number,
        }
        self._rank = ranks[policy]
        self._takes_turns = policy == "fair"
        self.is_by_arrival = policy == "fcfs"
        """Whoever comes goes last."""

    def num_ahead(
        self,
        one: Reservation,
        queued: Collection[Reservation],
        accounts: Mapping[str, TenantAccount],
        weight: float,
    ) -> int:
        """Count the queued sequences that go before those of `one`, which may be among them or not
        yet be. weight: its tenant's.
        """
        own = self._rank(one)
        if not self._takes_turns:
            return sum(other.num_queued for other in queued if self._rank(other) < own)
        num_own = sum(
            other.num_queued
            for other in queued
            if other.tenant == one.tenant and self._rank(other) < own
        )
        # While one of ours starts, so do theirs by their weight over ours.
        return num_own + sum(
            min(other.num_queued, round((num_own + 1) * other.limits.weight / weight))
            for name, other in accounts.items()
            if name != one.tenant
        )


def _by_number(one: Reservation) -> tuple[float, ...]:
    return (one.number,)


def _by_level(one: Reservation) -> tuple[float, ...]:
    return (one.priority, one.arrival_s, one.number)


def _by_age(ageing_s: float) -> Rank:
    return lambda one: (one.arrival_s + ageing_s * one.priority, one.priority, one.number)


def _by_deadline(one: Reservation) -> tuple[float, ...]:
    return (min(one.deadlines.moments, default=float("inf")), one.number)
