"""StopChecker: find stop strings in a stream of text and hold back what may become one.

Pure computation: text pieces in, visible pieces out. One per sequence, called by
`text/output_text.py`. Each piece is searched together with the few characters before it that a
match could begin in, so the cost is proportional to the new text.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopChecker:
    """Watch one sequence's text for its stop strings. Written only by its owner.

    A match ends in the newest piece, may begin in earlier ones, and cuts the text before itself,
    or behind itself with `include_stop`. Where several stop strings end in the same piece, the
    first in list order wins, not the earliest in the text. While the sequence runs, the last
    max(len(stop)) - 1 characters stay hidden, because a match could still cut them; with
    `include_stop` nothing can be cut and nothing is held back.
    """

    __slots__ = ("_held", "_hold", "_include", "_reach", "_stops", "_tail", "matched")

    def __init__(self, stops: Sequence[str], include_stop: bool = False) -> None:
        assert all(stops), f"empty stop string in {stops!r}"
        self._stops = tuple(stops)
        self._include = include_stop
        self._reach = max(map(len, self._stops), default=1) - 1
        self._hold = 0 if include_stop else self._reach
        self._tail = ""
        """The last `_reach` characters before the next piece."""
        self._held = 0
        """How many characters at the end of `_tail` are not visible yet."""
        self.matched: str | None = None

    def append(
        self, text: str, is_final: bool = False, *, is_checked: bool = True
    ) -> tuple[str, str | None]:
        """Take the next piece; return the text that becomes visible, and the stop string found.

        is_final: no more text will come, so that nothing is held back any longer.
        is_checked: False for text that must not stop the sequence (below min_tokens).
        After a match everything more is dropped.
        """
        if self.matched is not None:
            return "", self.matched
        if not self._stops:
            return text, None
        buffer = self._tail + text
        first_hidden = len(self._tail) - self._held
        if text and is_checked:
            end = self._find(buffer, len(self._tail))
            if end is not None:
                return buffer[first_hidden:end], self.matched
        first_held = max(first_hidden, len(buffer) if is_final else len(buffer) - self._hold)
        self._held = len(buffer) - first_held
        self._tail = buffer[-self._reach :] if self._reach else ""
        return buffer[first_hidden:first_held], None

    def _find(self, buffer: str, num_old: int) -> int | None:
        """Return where to cut `buffer`, or None; a match ends behind its first `num_old`."""
        for stop in self._stops:
            start = buffer.find(stop, max(0, num_old - len(stop) + 1))
            if start >= 0:
                self.matched = stop
                return start + len(stop) if self._include else start
        return None
