"""Sequences that wait for a seat, smallest rank first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from wheelpit.scheduling.sequence import Rank, Sequence


class WaitingQueue:
    """A heap by rank. `remove` is O(1): it leaves a dead entry that later operations skip.

    Written only by Scheduler. Dead entries are swept out once they are the majority, so they
    cost memory in proportion to the living and time in proportion to the removals.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Sequence]] = []
        self._waiting: set[Sequence] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        """Iterate in no particular order."""
        return iter(self._waiting)

    def push(self, sequence: Sequence) -> None:
        self._waiting.add(sequence)
        heapq.heappush(self._heap, (sequence.rank, sequence))

    def peek(self) -> Sequence:
        """Return the first; the queue must not be empty."""
        while self._heap[0][1] not in self._waiting:
            heapq.heappop(self._heap)
        return self._heap[0][1]

    def pop(self) -> Sequence:
        """Remove and return the first; the queue must not be empty."""
        sequence = self.peek()
        heapq.heappop(self._heap)
        self._waiting.remove(sequence)
        self._sweep()
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence wherever it is. It must not be pushed again."""
        self._waiting.remove(sequence)
        self._sweep()

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._waiting) + 16:
            self._heap = [entry for entry in self._heap if entry[1] in self._waiting]
            heapq.heapify(self._heap)

    def check(self) -> None:
        """Assert that every waiting sequence has exactly one entry; O(n log n), for tests."""
        living = [sequence for _, sequence in self._heap if sequence in self._waiting]
        assert len(living) == len(self._waiting), "a waiting sequence has no entry, or two"
        assert all(rank == sequence.rank for rank, sequence in self._heap), "a rank has changed"
        assert len(self._heap) <= 2 * len(self._waiting) + 16, "dead entries pile up"
