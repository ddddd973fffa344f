"""Until when a sequence is worth working on, and which sequences have run out of time."""

from __future__ import annotations

from typing import Literal

import msgspec

TimeoutReason = Literal["timeout", "queue_timeout", "ttft_timeout"]
"""The `stop_reason` of a sequence that ended with "abort" because its time was over."""


class Deadlines(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Moments on the monotonic clock, which all processes of a machine share; None is never.

    total_s: the sequence ends. queue_s: it ends unless it was scheduled once. ttft_s: it ends
    unless it has a token.
    """

    total_s: float | None = None
    queue_s: float | None = None
    ttft_s: float | None = None

    def missed(self, now: float, *, was_scheduled: bool, has_output: bool) -> TimeoutReason | None:
        """Name the deadline that is over; None while there is time left."""
        if self.queue_s is not None and not was_scheduled and now >= self.queue_s:
            return "queue_timeout"
        if self.ttft_s is not None and not has_output and now >= self.ttft_s:
            return "ttft_timeout"
        if self.total_s is not None and now >= self.total_s:
            return "timeout"
        return None

    @property
    def moments(self) -> tuple[float, ...]:
        """Those that are set, in no order."""
        given = (self.total_s, self.queue_s, self.ttft_s)
        return tuple(moment for moment in given if moment is not None)


NO_DEADLINES = Deadlines()
