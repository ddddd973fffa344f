"""How long a wait for a seat is, told from how long seats were held lately.

A seat is what lets a sequence run: there are `max_num_seqs`, or fewer while the KV cache is full.
C seats that are each held for S seconds become free C / S times a second when all are taken
(Little's law), whether or not anybody has waited before. So the first wait after a quiet hour can
be estimated, too, and a burst that fills empty seats is not mistaken for a queue that moves fast.

S is a mean over the seats that were given up lately. Nobody gives up a seat in an engine that is
stuck: what the seats have been held for since the last was given up counts as one more of them, as
soon as it is longer than S for every seat. So the rate falls by itself while nothing moves.
"""

from __future__ import annotations

MEMORY = 64
"""How many of the last seats the mean is about."""


class Turnover:
    """The seats and the recent past of them. Written only by Admission."""

    def __init__(self, num_seats: int) -> None:
        self._num_seats = num_seats
        self._num_usable = num_seats
        self._num_taken = 0
        self._num_ends = 0
        self._mean_held_s: float | None = None
        self._held_since_end_s = 0.0
        self._as_of_s = 0.0

    @property
    def num_taken(self) -> int:
        return self._num_taken

    @property
    def num_free(self) -> int:
        """Seats that nobody holds, whether or not the cache has room for them."""
        return max(0, self._num_seats - self._num_taken)

    def on_start(self, now: float) -> None:
        """A sequence has taken a seat."""
        self._settle(now)
        self._num_taken += 1

    def on_end(self, held_s: float, now: float) -> None:
        """A sequence has given up its seat, for good."""
        self._settle(now)
        self._num_taken -= 1
        self._held_since_end_s = 0.0
        self._num_ends = min(MEMORY, self._num_ends + 1)
        mean = held_s if self._mean_held_s is None else self._mean_held_s
        self._mean_held_s = mean + (held_s - mean) / self._num_ends

    def on_full(self) -> None:
        """The cache has no room for another sequence: there are no more seats than are taken."""
        self._num_usable = max(1, min(self._num_taken, self._num_seats))

    def on_room(self) -> None:
        """Nobody waits for room in the cache."""
        self._num_usable = self._num_seats

    def rate(self, now: float) -> float | None:
        """Seats that become free in a second when all are taken; None before the first did."""
        held_s = self._held_s(now)
        return None if held_s is None else self._num_usable / held_s

    def wait_s(self, num_ahead: int, now: float) -> float | None:
        """Seconds until one starts that has so many ahead of it in the queue; None if unknown."""
        return self.wait_among_s(self._num_usable, self._num_taken, num_ahead, now)

    def wait_among_s(
        self, num_seats: int, num_taken: int, num_ahead: int, now: float
    ) -> float | None:
        """Likewise for a part of the seats."""
        num_needed = num_ahead + 1 - max(0, num_seats - num_taken)
        if num_needed <= 0:
            return 0.0
        held_s = self._held_s(now)
        return None if held_s is None else num_needed * held_s / num_seats

    def _held_s(self, now: float) -> float | None:
        if self._mean_held_s is None:
            return None
        since_end_s = self._held_since_end_s + self._num_taken * (now - self._as_of_s)
        # Not 0: what was held for no time at all was held for less than the clock can tell.
        return max(self._mean_held_s, since_end_s / self._num_usable, 1e-6)

    def _settle(self, now: float) -> None:
        self._held_since_end_s += self._num_taken * (now - self._as_of_s)
        self._as_of_s = now
