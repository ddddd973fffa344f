"""Who may come in: bounds on what waits, decided on arrival, before anything is spent.

A request is reserved a place the moment it arrives, before it is tokenized, and keeps it until it
ends, whatever ends it. Each of its n sequences counts by itself:

    reserve ──> queued ── start ──> running ── end ──> (gone)
                  └───────────────────────── end ────────^       release ends all that are left

Queued is whatever the engine has not scheduled yet: being tokenized, held by a pause, on the way
through the socket, or waiting there. A sequence that was preempted keeps its seat in this count.

Nothing here does I/O or reads a clock: `now` is an argument, and the same calls at the same moments
give the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from wheelpit.config import SchedulerConfig
from wheelpit.engine.limits import Limits, TenantLimits
from wheelpit.engine.queue_order import QueueOrder
from wheelpit.engine.reservation import Reservation
from wheelpit.engine.tenant_account import TenantAccount
from wheelpit.engine.turnover import Turnover
from wheelpit.errors import OverloadedError
from wheelpit.scheduling.deadlines import NO_DEADLINES, Deadlines

__all__ = ["Admission", "Limits", "Reservation", "TenantLimits", "estimate_tokens"]

MAX_RETRY_AFTER_S = 600.0
"""Nobody is told to come back later than that: estimates of longer waits are worth little."""

CHARS_PER_TOKEN = 4
"""A guess, for texts that are not tokenized yet."""

CROWDED = 0.5
"""A KV cache fuller than this may be why nobody starts though there are seats."""


class Admission:
    """The reservations of one engine, counted. Written only in the front end's thread."""

    def __init__(self, limits: Limits, scheduler: SchedulerConfig) -> None:
        self.limits = limits
        self._order = QueueOrder(scheduler.policy, scheduler.priority_ageing_s)
        self._turnover = Turnover(scheduler.max_num_seqs)
        self._queued: dict[Reservation, None] = {}  # with a queued sequence; in order of arrival
        self._num_queued = 0
        self._num_queued_tokens = 0
        self._num_reserved = 0
        self._accounts: dict[str, TenantAccount] = {}
        self._idle: dict[str, None] = {}  # accounts kept for their used tokens alone

    @property
    def num_queued(self) -> int:
        """Sequences that have never run."""
        return self._num_queued

    @property
    def num_queued_tokens(self) -> int:
        """Their prompt tokens."""
        return self._num_queued_tokens

    @property
    def num_running(self) -> int:
        """Sequences that have run and not ended."""
        return self._turnover.num_taken

    @property
    def num_accounts(self) -> int:
        """Tenants that are remembered."""
        return len(self._accounts)

    def drain_rate(self, now: float) -> float | None:
        """Queued sequences that start in a second once all seats are taken; None if unknown."""
        return self._turnover.rate(now)

    @property
    def is_full(self) -> bool:
        """Would one more sequence be refused, however short its prompt and whoever sent it?"""
        bound, num_free = self.limits.max_num_queued_reqs, self._turnover.num_free
        is_idle = self._num_queued == self.num_running == 0
        if bound is not None and not _fits(self._num_queued, 1, num_free, bound, is_idle=is_idle):
            return True
        bound = self.limits.max_num_queued_tokens
        return bound is not None and self._num_queued > 0 and self._num_queued_tokens >= bound

    def set_limits(self, limits: Limits, now: float) -> None:
        """Make other limits hold from now on; nobody who is in is turned out."""
        self.limits = limits
        for name, account in self._accounts.items():
            account.settle(now)
            account.limits = limits.of(name)

    def reserve(
        self,
        request_id: str,
        now: float,
        *,
        num_tokens: int,
        num_sequences: int = 1,
        tenant: str = "",
        priority: int = 0,
        deadlines: Deadlines = NO_DEADLINES,
        arrival_s: float | None = None,
    ) -> Reservation:
        """Give a request its place, or raise OverloadedError and change nothing.

        num_tokens: of the prompt, as far as known. arrival_s: None is `now`.
        """
        (reservation,) = self.reserve_all(
            [(request_id, num_tokens)],
            now,
            num_sequences=num_sequences,
            tenant=tenant,
            priority=priority,
            deadlines=deadlines,
            arrival_s=arrival_s,
        )
        return reservation

    def reserve_all(
        self,
        places: Sequence[tuple[str, int]],
        now: float,
        *,
        num_sequences: int = 1,
        tenant: str = "",
        priority: int = 0,
        deadlines: Deadlines = NO_DEADLINES,
        arrival_s: float | None = None,
    ) -> list[Reservation]:
        """Give several prompts of one caller their places, or raise OverloadedError for all.

        places: (request id, tokens of the prompt). num_sequences: of each. They are checked as one
        request that has all their sequences and tokens.
        """

        self._forget_idle(now)
        account = self._accounts.get(tenant)
        if account is None:
            account = TenantAccount(self.limits.of(tenant), now)
        reservations = [
            Reservation(
                request_id,
                number=self._num_reserved + index,
                arrival_s=now if arrival_s is None else arrival_s,
                num_tokens=num_tokens,
                num_sequences=num_sequences,
                tenant=tenant,
                priority=priority,
                deadlines=deadlines,
            )
            for index, (request_id, num_tokens) in enumerate(places)
        ]
        self._check_tenant(reservations, account, now)
        self._check_queue(reservations, account, now)
        self._check_deadlines(reservations[0], account, now)

        self._accounts[tenant] = account
        self._idle.pop(tenant, None)
        self._num_reserved += len(reservations)
        for reservation in reservations:
            reservation._admission = self
            reservation._queued = set(range(num_sequences))
            self._queued[reservation] = None
            account.num_reservations += 1
            account.charge(reservation.num_tokens, now)
            self._add_queued(account, num_sequences, reservation.num_tokens)
        return reservations

    def on_step(self, num_waiting: int, num_started: int, kv_cache_usage: float) -> None:
        """Learn from what the engine says of itself after a step whether seats are what is scarce.

        Call it after the `start` of those that the step has started.
        """
        if num_waiting == 0:
            self._turnover.on_room()
        elif (
            num_started == 0
            and kv_cache_usage > CROWDED
            # Those who wait for a seat of their tenant's are no sign.
            and any(a.num_queued and a.may_start for a in self._accounts.values())
        ):
            self._turnover.on_full()

    def num_ahead(self, reservation: Reservation) -> int:
        """How many queued sequences go first, by the policy."""
        if self._order.is_by_arrival and reservation.is_released:
            return self._num_queued  # it is not in yet; refusing is to be cheap
        weight = self.limits.of(reservation.tenant).weight
        return self._order.num_ahead(reservation, self._queued, self._accounts, weight)

    def wait_s(self, reservation: Reservation, num_ahead: int, now: float) -> float | None:
        """Seconds until it starts with so many ahead of it; None if nothing is known."""
        account = self._accounts.get(reservation.tenant)
        if account is None:
            return self._turnover.wait_s(num_ahead, now)
        return self._wait_s(reservation, account, num_ahead, now)

    # --- checking

    def _check_tenant(self, new: list[Reservation], account: TenantAccount, now: float) -> None:
        one, over_s = new[0], account.over_rate_s(now)
        if over_s is not None:
            rate = account.limits.tokens_per_minute
            raise OverloadedError(
                f"tenant {one.tenant!r} has used more than {rate} tokens a minute "
                f"(tokens_per_minute): try again in {_shown(over_s)}",
                retry_after_s=_retry_after_s(over_s),
                reason="tenant_rate",
            )
        bound = account.limits.max_queued
        if bound is None:
            return
        num_free = self._turnover.num_free
        if account.limits.max_running is not None:
            num_free = min(num_free, max(0, account.limits.max_running - account.num_running))
        is_idle = account.num_queued == account.num_running == 0
        num_new = one.num_sequences * len(new)
        if not _fits(account.num_queued, num_new, num_free, bound, is_idle=is_idle):
            text = f"tenant {one.tenant!r} has {account.num_queued} queued, limit is {bound}"
            estimate_s = self._wait_s(one, account, self.num_ahead(one), now)
            raise _too_much(f"{text} (max_queued)", "tenant_queue", estimate_s, estimate_s)

    def _check_queue(self, new: list[Reservation], account: TenantAccount, now: float) -> None:
        one, num_new = new[0], new[0].num_sequences * len(new)
        bound, num_free = self.limits.max_num_queued_reqs, self._turnover.num_free
        is_idle = self._num_queued == self.num_running == 0
        if bound is not None and not _fits(
            self._num_queued, num_new, num_free, bound, is_idle=is_idle
        ):
            text = f"{self._num_queued} are queued with {num_free} seats free, limit is {bound}"
            raise self._busy(f"{text} (max_num_queued_reqs)", "queue_full", one, account, now)
        bound = self.limits.max_num_queued_tokens
        num_tokens = self._num_queued_tokens + sum(r.num_tokens * r.num_sequences for r in new)
        if bound is not None and self._num_queued and num_tokens > bound:
            text = f"{self._num_queued_tokens} prompt tokens are queued, limit is {bound}"
            raise self._busy(f"{text} (max_num_queued_tokens)", "queue_tokens", one, account, now)

    def _busy(
        self, text: str, reason: str, new: Reservation, account: TenantAccount, now: float
    ) -> OverloadedError:
        """Say when the last of those that are in now will have started."""
        estimate_s = self._wait_s(new, account, self.num_ahead(new), now)
        return _too_much(text, reason, self._turnover.wait_s(self._num_queued, now), estimate_s)

    def _check_deadlines(self, new: Reservation, account: TenantAccount, now: float) -> None:
        if not self.limits.refuse_late or not new.deadlines.moments:
            return
        estimate_s = self._wait_s(new, account, self.num_ahead(new), now)
        left_s = min(new.deadlines.moments) - now
        if estimate_s is not None and estimate_s > left_s:
            raise OverloadedError(
                f"it would start in about {estimate_s:.1f} s and has {left_s:.1f} s left of its "
                f"shortest timeout: give it more, or try again in {_shown(estimate_s)}",
                retry_after_s=_retry_after_s(estimate_s),
                reason="deadline",
                estimate_s=estimate_s,
            )

    def _wait_s(
        self, reservation: Reservation, account: TenantAccount, num_ahead: int, now: float
    ) -> float | None:
        """Until there is a seat for it, and one of its tenant's."""
        wait_s = self._turnover.wait_s(num_ahead, now)
        seats = account.limits.max_running
        if seats is None or wait_s is None:
            return wait_s
        own_ahead = min(num_ahead, account.num_queued)
        own_s = self._turnover.wait_among_s(seats, account.num_running, own_ahead, now)
        return None if own_s is None else max(wait_s, own_s)

    # --- counting; called by Reservation

    def _resize(self, reservation: Reservation, num_tokens: int, now: float) -> None:
        account = self._accounts[reservation.tenant]
        account.charge(num_tokens - reservation.num_tokens, now)
        self._num_queued_tokens += (num_tokens - reservation.num_tokens) * reservation.num_queued
        reservation.num_tokens = num_tokens

    def _start(self, reservation: Reservation, index: int, now: float) -> None:
        account = self._accounts[reservation.tenant]
        self._leave_queue(reservation, index, account)
        reservation._running[index] = now
        reservation._has_started = True
        account.num_running += 1
        self._turnover.on_start(now)

    def _end(self, reservation: Reservation, index: int, now: float) -> None:
        account = self._accounts[reservation.tenant]
        if index in reservation._queued:
            self._leave_queue(reservation, index, account)
        elif index in reservation._running:
            started_s = reservation._running.pop(index)
            account.num_running -= 1
            self._turnover.on_end(now - started_s, now)

    def _charge(self, reservation: Reservation, num_tokens: int, now: float) -> None:
        self._accounts[reservation.tenant].charge(num_tokens, now)

    def _release(self, reservation: Reservation, now: float) -> None:
        account = self._accounts[reservation.tenant]
        if not reservation._has_started:
            # Nothing was computed for it.
            account.charge(-reservation.num_tokens, now)
        for index in (*reservation._queued, *reservation._running):
            self._end(reservation, index, now)
        reservation._admission = None
        account.num_reservations -= 1
        if account.num_reservations == 0:
            self._idle[reservation.tenant] = None
            self._forget_idle(now)

    def _leave_queue(self, reservation: Reservation, index: int, account: TenantAccount) -> None:
        reservation._queued.remove(index)
        self._add_queued(account, -1, reservation.num_tokens)
        if not reservation._queued:
            del self._queued[reservation]

    def _add_queued(self, account: TenantAccount, num_sequences: int, num_tokens: int) -> None:
        self._num_queued += num_sequences
        self._num_queued_tokens += num_sequences * num_tokens
        account.num_queued += num_sequences

    def _forget_idle(self, now: float) -> None:
        """Drop accounts that are as good as new; two are looked at each time, in turns."""
        for name in list(islice(self._idle, 2)):
            account = self._accounts[name]
            account.settle(now)
            del self._idle[name]
            if account.used_tokens:
                self._idle[name] = None
            else:
                del self._accounts[name]


def estimate_tokens(num_chars: int) -> int:
    """About how many tokens a text of this length has."""
    return -(-num_chars // CHARS_PER_TOKEN)


def _fits(num_queued: int, num_new: int, num_free: int, bound: int, *, is_idle: bool) -> bool:
    """Would no more than `bound` wait beyond the free seats? One that is larger by itself may."""
    nobody_waits = num_queued <= num_free and bound > 0
    return num_queued + num_new - num_free <= bound or nobody_waits or is_idle


def _too_much(
    text: str, reason: str, wait_s: float | None, estimate_s: float | None
) -> OverloadedError:
    return OverloadedError(
        f"the engine is busy: {text}: try again in {_shown(wait_s)}",
        retry_after_s=_retry_after_s(wait_s),
        reason=reason,
        estimate_s=estimate_s,
    )


def _retry_after_s(seconds: float | None) -> float:
    return min(max(1.0, seconds or 1.0), MAX_RETRY_AFTER_S)


def _shown(seconds: float | None) -> str:
    return f"{_retry_after_s(seconds):.0f} s"
