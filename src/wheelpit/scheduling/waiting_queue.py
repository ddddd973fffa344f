"""Sequences that wait for a seat: a heap by rank for each tenant."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from wheelpit.scheduling.sequence import Rank, Sequence


class WaitingQueue:
    """Who waits, and the first of each tenant. Written only by Scheduler.

    `remove` leaves a dead entry that later operations skip. A tenant's dead entries are swept out
    once they are the majority, so they cost memory in proportion to the living and time in
    proportion to the removals.
    """

    def __init__(self) -> None:
        self._tenants: dict[str, _Heap] = {}
        self._num_waiting = 0

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Sequence]:
        """Iterate in no particular order."""
        for heap in self._tenants.values():
            yield from heap.living

    def heads(self) -> list[Sequence]:
        """The first of each tenant that waits."""
        return [heap.first() for heap in self._tenants.values()]

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

    def rerank(self, sequence: Sequence, rank: Rank) -> None:
        """Move a sequence to where its new rank belongs."""
        self.remove(sequence)
        sequence.rank = rank
        self.push(sequence)

    def check(self) -> None:
        """Assert that every waiting sequence has exactly one entry; O(n log n), for tests."""
        for heap in self._tenants.values():
            heap.check()
        assert self._num_waiting == sum(len(heap.living) for heap in self._tenants.values())


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
