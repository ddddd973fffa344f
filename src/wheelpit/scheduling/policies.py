"""Who goes first. A policy ranks a sequence once, when it is added; smaller ranks go first.

One rank decides everything: the order within a step, who is started next, and who is preempted
(the largest rank among the running). A preempted sequence keeps its rank. Under `fcfs` it
is therefore older than everything that waits and returns to the front of the queue by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wheelpit.config import SchedulingPolicy
from wheelpit.scheduling.sequence import Rank, Sequence

Policy = Callable[[Sequence, int], Rank]
"""(sequence, its number in the order of adding) -> rank. Ranks of different sequences differ."""


def fcfs(sequence: Sequence, number: int) -> Rank:
    """First come, first served; `priority` is ignored."""
    return (number,)


def priority(sequence: Sequence, number: int) -> Rank:
    """Smaller `priority` first; equal ones by arrival, then in the order of adding."""
    return (sequence.priority, sequence.arrival_s, number)


POLICIES: Mapping[SchedulingPolicy, Policy] = {"fcfs": fcfs, "priority": priority}
