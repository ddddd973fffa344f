"""What a thread is doing, as the system sees it: it computes, it waits, or it waits for a core.

On a busy machine a thread may stand at a line for a long time because others have the cores. That
looks like code that blocks, and is nobody's mistake. Linux can tell; where the system cannot, a
thread that stands is taken for one that blocks.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from labkit.timing import monotonic

BUSY_LOOK_S = 0.3
"""How long a thread is looked at, at most, to see whether it computes: on a busy machine one that
does may get no core for a while."""

NOTHING_S = 0.0003
"""Who has used no more of a core than this between two looks has done nothing."""


class Looks:
    """Looks at one thread again and again, from another. Needs the thread's own counts."""

    def __init__(self) -> None:
        self._used_before = 0.0

    def is_at_fault(self, thread: threading.Thread, used_at_beat_s: float, much_s: float) -> bool:
        """Does the thread keep its loop from beating? Else it only waits for a core.

        used_at_beat_s: the processor time that it had used when the loop last beat. much_s: who has
        used so much since then computes.
        """
        used_s, is_runnable = _used_s(thread), _is_runnable(thread)
        if used_s is None or is_runnable is None:
            return True
        before, self._used_before = self._used_before, used_s
        is_waiting = not is_runnable and used_s - before < NOTHING_S
        return is_waiting or used_s - used_at_beat_s > much_s


def is_computing(thread: threading.Thread) -> bool:
    """Look at a thread for a while to see whether it computes; False where nobody can tell."""
    before = _used_s(thread)
    deadline = monotonic() + BUSY_LOOK_S
    while before is not None and thread.is_alive() and monotonic() < deadline:
        threading.Event().wait(BUSY_LOOK_S / 10)
        used_s = _used_s(thread)
        if used_s is not None and used_s - before > 10 * NOTHING_S:
            return True
    return False


def _used_s(thread: threading.Thread) -> float | None:
    """Return the processor time that a thread has used."""
    if not thread.is_alive() or thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _is_runnable(thread: threading.Thread) -> bool | None:
    """Tell whether a thread runs or would, had it a core."""
    try:
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
    except OSError:
        return None
    # The name before the state is in parentheses, and may have spaces.
    return stat.rpartition(")")[2].split()[0] == "R"
