"""Which sequences have run out of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from wheelpit.scheduling.deadlines import TimeoutReason
from wheelpit.scheduling.sequence import Sequence


class Expiry:
    """The deadlines of all sequences, the next one first. Written only by Scheduler.

    Deadlines of sequences that have ended are skipped, and swept out once they are many.
    """

    def __init__(self) -> None:
        self._moments: list[tuple[float, int, Sequence]] = []  # a heap

    def __len__(self) -> int:
        return len(self._moments)

    def watch(self, sequence: Sequence) -> None:
        for moment in sequence.deadlines.moments:
            heapq.heappush(self._moments, (moment, sequence.number, sequence))

    def missed(self, now: float) -> Iterator[tuple[Sequence, TimeoutReason]]:
        """Take out the deadlines that are over; yield whoever missed one, to be ended at once."""
        while self._moments and self._moments[0][0] <= now:
            sequence = heapq.heappop(self._moments)[2]
            if sequence.is_finished:
                continue
            missed = sequence.deadlines.missed(
                now,
                was_scheduled=sequence.first_scheduled_s is not None,
                has_output=sequence.has_output,
            )
            if missed is not None:
                yield sequence, missed

    def sweep(self, num_sequences: int) -> None:
        """Drop what belongs to the ended, if that may be half of all; each living has three."""
        if len(self._moments) > 6 * num_sequences + 64:
            self._moments = [entry for entry in self._moments if not entry[2].is_finished]
            heapq.heapify(self._moments)
