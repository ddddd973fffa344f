"""Who goes first. Pure functions of sequences, of the clock's reading and of the forecast.

A policy ranks every sequence; smaller ranks go first. One rank decides everything: the order
within a step, who of a tenant starts next, and who is preempted (the largest rank among the
running). A preempted sequence keeps its rank: under `fcfs` it is therefore older than everything
that waits and returns to the front by itself.

    fcfs      first come, first served; `priority` is ignored
    priority  smaller `priority` first, then by arrival; waiting makes up for a level at a time
    deadline  earliest deadline first; who cannot make it any more goes last
    fair      the tenant with the least service first (see tenants.py), then first come

Only `priority` and `deadline` take a seat away from a running sequence for a waiting one, and only
where it is worth the recomputing: from a less urgent level, and from one that will be late anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wheelpit.config import SchedulerConfig, SchedulingPolicy
from wheelpit.scheduling.forecast import Forecast
from wheelpit.scheduling.sequence import Rank, Sequence

NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The decisions of one policy.

    rank: (sequence, clock, forecast) -> rank. Ranks of different sequences differ.
    is_timed: ranks change as time passes: they are looked at again before they decide anything.
    by_service: tenants take turns by their service; else they make no difference.
    displaces: (waiting, running) -> may the first take the second's seat? Asked only if its rank
    is smaller.
    """

    rank: Callable[[Sequence, float, Forecast], Rank]
    is_timed: bool = False
    by_service: bool = False
    displaces: Callable[[Sequence, Sequence], bool] = lambda waiting, running: False


def make_policy(config: SchedulerConfig) -> Policy:
    """Build the policy that a configuration names."""
    policies: dict[SchedulingPolicy, Callable[[SchedulerConfig], Policy]] = {
        "fcfs": lambda config: Policy(rank=_rank_by_number),
        "priority": lambda config: _priority(config.priority_ageing_s),
        "deadline": lambda config: Policy(
            rank=_rank_by_deadline, is_timed=True, displaces=_displaces_the_late
        ),
        "fair": lambda config: Policy(rank=_rank_by_number, by_service=True),
    }
    return policies[config.policy](config)


def _rank_by_number(sequence: Sequence, now: float, forecast: Forecast) -> Rank:
    return (sequence.number,)


def _priority(ageing_s: float) -> Policy:
    """Smaller `priority` first, ties by arrival.

    ageing_s: seconds of waiting that make up for one level; 0 for strict levels. One who waits
    one level behind goes before whoever arrives ageing_s later: the sum of arrival and levels
    never changes, so that a rank stays what it is while everybody ages alike.
    """

    def rank_aged(sequence: Sequence, now: float, forecast: Forecast) -> Rank:
        age = sequence.arrival_s + ageing_s * sequence.priority
        return (age, sequence.priority, sequence.number)

    def rank_strict(sequence: Sequence, now: float, forecast: Forecast) -> Rank:
        return (sequence.priority, sequence.arrival_s, sequence.number)

    return Policy(
        rank=rank_aged if ageing_s else rank_strict,
        displaces=lambda waiting, running: waiting.priority < running.priority,
    )


def _rank_by_deadline(sequence: Sequence, now: float, forecast: Forecast) -> Rank:
    """(will it be late?, its next deadline, number)."""
    deadlines = sequence.deadlines
    due_s = NEVER if deadlines.total_s is None else deadlines.total_s
    is_late = due_s < NEVER and now + forecast.finish_s(sequence) > due_s
    if not sequence.has_output and deadlines.ttft_s is not None:
        is_late = is_late or now + forecast.first_token_s(sequence) > deadlines.ttft_s
        due_s = min(due_s, deadlines.ttft_s)
    if sequence.first_scheduled_s is None and deadlines.queue_s is not None:
        due_s = min(due_s, deadlines.queue_s)
    return (is_late, due_s, sequence.number)


def _displaces_the_late(waiting: Sequence, running: Sequence) -> bool:
    return bool(running.rank[0]) and not waiting.rank[0]
