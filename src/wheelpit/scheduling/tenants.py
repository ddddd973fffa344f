"""Tenants: who shares the engine, what each was served, and how many seats each may hold.

A tenant is whatever the front end says: the owner of an API key, a user, or "" for everybody.

Service is counted as in the virtual token counters of Sheng et al. 2024 (arXiv:2401.00588): a
counter a tenant, to which each of its tokens adds 1 / weight; whoever has the smallest counter
goes next. Two rules make it fair over time:

- A tenant that comes to wait after a while without waiting starts at the smallest counter among
  those that wait: nobody saves up service by staying away.
- A sequence is charged when it first starts for its prompt and for what it is expected to
  generate, and the difference is settled when it ends. If tokens were charged as they come, a
  few seats that are freed together would all go to one tenant, whose counter moves long after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from wheelpit.config import require
from wheelpit.scheduling.sequence import Sequence, SequenceStatus


class TenantShare(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """weight: under the fair policy, relative to other tenants'. max_running: None is all seats."""

    weight: float = 1.0
    max_running: int | None = None

    def __post_init__(self) -> None:
        require(0.0 < self.weight < float("inf"), "weight", self.weight, "positive and finite")
        require(
            self.max_running is None or self.max_running >= 1,
            "max_running",
            self.max_running,
            "at least 1, or None",
        )


@dataclass(slots=True)
class Tenant:
    """One tenant's account. Written only by `Tenants`. service: weighted tokens charged so far."""

    share: TenantShare
    num_waiting: int = 0
    num_running: int = 0
    service: float = 0.0

    @property
    def may_start(self) -> bool:
        """Is there a seat left for one more of its sequences?"""
        return self.share.max_running is None or self.num_running < self.share.max_running


class Tenants:
    """The accounts of all tenants. Written only by Scheduler, which tells of each change of place.

    An account without sequences is dropped as soon as its counter is no larger than the one that
    its owner would be given on coming back.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, Tenant] = {}
        self._shares: Mapping[str, TenantShare] = {}
        self._default = TenantShare()

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, sequence: Sequence) -> Tenant:
        """The account of a sequence that waits or runs."""
        return self._accounts[sequence.tenant]

    def set_shares(self, shares: Mapping[str, TenantShare], default: TenantShare) -> None:
        """Change weights and seats; who holds more seats than allowed keeps them to the end."""
        self._shares, self._default = dict(shares), default
        for name, tenant in self._accounts.items():
            tenant.share = self._shares.get(name, default)

    def on_waiting(self, sequence: Sequence) -> None:
        """A new sequence has joined the queue."""
        tenant = self._accounts.get(sequence.tenant)
        if tenant is None:
            share = self._shares.get(sequence.tenant, self._default)
            tenant = self._accounts[sequence.tenant] = Tenant(share)
        if tenant.num_waiting == 0:
            tenant.service = max(tenant.service, self._floor())
        tenant.num_waiting += 1

    def on_start(self, sequence: Sequence, expected_output_tokens: int) -> None:
        """A waiting sequence runs."""
        tenant = self._accounts[sequence.tenant]
        tenant.num_waiting -= 1
        tenant.num_running += 1
        if sequence.num_charged_tokens is None:
            num_tokens = sequence.num_prompt_tokens + expected_output_tokens
            sequence.num_charged_tokens = num_tokens
            tenant.service += num_tokens / tenant.share.weight

    def on_preempt(self, sequence: Sequence) -> None:
        """A running sequence waits again."""
        tenant = self._accounts[sequence.tenant]
        tenant.num_running -= 1
        tenant.num_waiting += 1

    def on_end(self, sequence: Sequence) -> None:
        """A sequence ends; call before its status changes."""
        tenant = self._accounts[sequence.tenant]
        if sequence.status is SequenceStatus.RUNNING:
            tenant.num_running -= 1
        else:
            tenant.num_waiting -= 1
        if sequence.num_charged_tokens is not None:
            owed = sequence.num_tokens - sequence.num_charged_tokens
            tenant.service += owed / tenant.share.weight
        if tenant.num_waiting == tenant.num_running == 0:
            self._drop_settled()

    def _floor(self) -> float:
        """The smallest counter among the tenants that wait; 0 if none does."""
        waiting = (t.service for t in self._accounts.values() if t.num_waiting)
        return min(waiting, default=0.0)

    def _drop_settled(self) -> None:
        is_idle = all(t.num_waiting == t.num_running == 0 for t in self._accounts.values())
        floor = float("inf") if is_idle else self._floor()
        for name, tenant in list(self._accounts.items()):
            if tenant.num_waiting == tenant.num_running == 0 and tenant.service <= floor:
                del self._accounts[name]

    def check(self, waiting: list[Sequence], running: list[Sequence]) -> None:
        """Assert that the counts are those of the sequences; for tests."""
        for name, tenant in self._accounts.items():
            num_waiting = sum(sequence.tenant == name for sequence in waiting)
            num_running = sum(sequence.tenant == name for sequence in running)
            assert (tenant.num_waiting, tenant.num_running) == (num_waiting, num_running), (
                f"tenant {name!r} counts {tenant.num_waiting} and {tenant.num_running}, "
                f"has {num_waiting} waiting and {num_running} running"
            )
        assert {s.tenant for s in (*waiting, *running)} <= self._accounts.keys()
