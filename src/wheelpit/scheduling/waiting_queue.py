"""Sequences that wait for a seat, and which of them is next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from wheelpit.scheduling.forecast import Forecast
from wheelpit.scheduling.policies import Policy
from wheelpit.scheduling.sequence import Rank, Sequence
from wheelpit.scheduling.tenants import Tenants

RERANK_INTERVAL_S = 1e-4
"""For each that waits: ranking it takes about a microsecond, so this costs 1 % of the time."""


class WaitingQueue:
    """A heap by rank for each tenant. Written only by Scheduler.

    `remove` leaves a dead entry that later operations skip. A tenant's dead entries are swept out
    once they are the majority, so they cost memory in proportion to the living and time in
    proportion to the removals.
    """

    def __init__(self, policy: Policy, tenants: Tenants, forecast: Forecast) -> None:
        """tenants: the accounts of all who wait here."""
        self._policy = policy
        self._accounts = tenants
        self._forecast = forecast
        self._tenants: dict[str, _Heap] = {}
        self._num_waiting = 0
        self._reranked_s = 0.0

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Sequence]:
        """Iterate in no particular order."""
        for heap in self._tenants.values():
            yield from heap.living

    def head(self, now: float) -> Sequence | None:
        """The one that starts next: the first by rank of the tenant whose turn it is.

        None if nobody waits whose tenant has a seat left.
        """
        policy, accounts = self._policy, self._accounts
        while True:
            heads = [heap.first() for heap in self._tenants.values()]
            heads = [head for head in heads if accounts.of(head).may_start]
            if not heads:
                return None
            if policy.by_service:
                head = min(heads, key=lambda head: (accounts.of(head).service, head.rank))
            else:
                head = min(heads, key=_rank_of)
            # One that turned late since it was ranked does not go first any more.
            rank = policy.rank(head, now, self._forecast) if policy.is_timed else head.rank
            if rank <= head.rank:
                return head
            self._rerank(head, rank)

    def in_order(self) -> list[Sequence]:
        """All, in the order in which they would start if nothing came in between."""
        if not self._policy.by_service:
            return sorted(self, key=_rank_of)
        by_tenant: dict[str, list[Sequence]] = {}
        for sequence in sorted(self, key=_rank_of, reverse=True):
            by_tenant.setdefault(sequence.tenant, []).append(sequence)
        turns = [
            (self._accounts.of(sequences[-1]).service, sequences[-1].rank, name)
            for name, sequences in by_tenant.items()
        ]
        heapq.heapify(turns)
        order: list[Sequence] = []
        while turns:
            service, _, name = turns[0]
            sequences = by_tenant[name]
            sequence = sequences.pop()
            order.append(sequence)
            if not sequences:
                heapq.heappop(turns)
                continue
            num_tokens = sequence.num_prompt_tokens + self._forecast.output_tokens(sequence)
            service += num_tokens / self._accounts.of(sequence).share.weight
            heapq.heapreplace(turns, (service, sequences[-1].rank, name))
        return order

    def push(self, sequence: Sequence) -> None:
        heap = self._tenants.get(sequence.tenant)
        if heap is None:
            heap = self._tenants[sequence.tenant] = _Heap()
        heap.push(sequence)
        self._num_waiting += 1

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence wherever it is."""
        heap = self._tenants[sequence.tenant]
        heap.remove(sequence)
        self._num_waiting -= 1
        if not heap.living:
            del self._tenants[sequence.tenant]

    def rerank_all(self, now: float) -> None:
        """Rank everybody anew; from time to time only: the more wait, the rarer."""
        if now - self._reranked_s < len(self) * RERANK_INTERVAL_S:
            return
        self._reranked_s = now
        for sequence in list(self):
            rank = self._policy.rank(sequence, now, self._forecast)
            if rank != sequence.rank:
                self._rerank(sequence, rank)

    def _rerank(self, sequence: Sequence, rank: Rank) -> None:
        self.remove(sequence)
        sequence.rank = rank
        self.push(sequence)

    def check(self) -> None:
        """Assert that every waiting sequence has exactly one entry; O(n log n), for tests."""
        for heap in self._tenants.values():
            heap.check()
        assert self._num_waiting == sum(len(heap.living) for heap in self._tenants.values())


def _rank_of(sequence: Sequence) -> Rank:
    return sequence.rank


class _Heap:
    """Entries by rank; an entry is dead if it is not the one that its sequence was last given."""

    __slots__ = ("entries", "living")

    def __init__(self) -> None:
        self.entries: list[tuple[Rank, int, Sequence]] = []
        self.living: dict[Sequence, Rank] = {}

    def push(self, sequence: Sequence) -> None:
        # A rank that was removed and comes back may find its dead entry: it is as good as new.
        self.living[sequence] = sequence.rank
        heapq.heappush(self.entries, (sequence.rank, sequence.number, sequence))

    def first(self) -> Sequence:
        while not self._is_living(self.entries[0]):
            heapq.heappop(self.entries)
        return self.entries[0][2]

    def remove(self, sequence: Sequence) -> None:
        del self.living[sequence]
        if len(self.entries) > 2 * len(self.living) + 16:
            living = {(rank, s.number): s for rank, _, s in filter(self._is_living, self.entries)}
            self.entries = [(rank, number, s) for (rank, number), s in living.items()]
            heapq.heapify(self.entries)

    def _is_living(self, entry: tuple[Rank, int, Sequence]) -> bool:
        rank, _, sequence = entry
        return self.living.get(sequence) == rank

    def check(self) -> None:
        found = {
            sequence for entry in self.entries for sequence in entry[2:] if self._is_living(entry)
        }
        assert found == self.living.keys(), "a waiting sequence has no entry"
        assert all(rank == s.rank for s, rank in self.living.items()), "a rank has changed"
        assert len(self.entries) <= 2 * len(self.living) + 17, "dead entries pile up"
