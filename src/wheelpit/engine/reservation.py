"""One request's place in the engine, from its arrival to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wheelpit.scheduling.deadlines import NO_DEADLINES, Deadlines

if TYPE_CHECKING:
    from wheelpit.engine.admission import Admission


class Reservation:
    """One request's place, from its arrival to its end.

    `AsyncLLMEngine.reserve` makes it; hand it to `generate`, which sees to everything from its
    first `__anext__` on, or give it back with `AsyncLLMEngine.release`. Changed only through its
    methods, in the front end's thread; after `release` they do nothing.
    """

    def __init__(
        self,
        request_id: str,
        *,
        number: int,
        arrival_s: float,
        num_tokens: int,
        num_sequences: int = 1,
        tenant: str = "",
        priority: int = 0,
        deadlines: Deadlines = NO_DEADLINES,
    ) -> None:
        """number: its place in the order of arrival. arrival_s: on the monotonic clock.
        num_tokens: of the prompt, or an estimate of it.
        """
        self.request_id = request_id
        self.number = number
        self.arrival_s = arrival_s
        self.num_tokens = num_tokens
        self.num_sequences = num_sequences
        self.tenant = tenant
        self.priority = priority
        self.deadlines = deadlines
        self.is_taken = False
        """`generate` has taken it over."""
        self.is_aborted = False
        """Somebody called `abort` before there was anything to abort."""
        self._queued: set[int] = set()
        self._running: dict[int, float] = {}
        self._has_started = False
        self._admission: Admission | None = None

    @property
    def is_released(self) -> bool:
        return self._admission is None

    @property
    def num_queued(self) -> int:
        """Of its sequences, those that never ran."""
        return len(self._queued)

    def resize(self, num_tokens: int, now: float) -> None:
        """Replace the estimate by what tokenizing the prompt has found. Never refuses."""
        if self._admission is not None:
            self._admission._resize(self, num_tokens, now)

    def start(self, index: int, now: float) -> None:
        """One of its sequences was scheduled for the first time."""
        if self._admission is not None and index in self._queued:
            self._admission._start(self, index, now)

    def end(self, index: int, now: float) -> None:
        """One of its sequences has ended."""
        if self._admission is not None:
            self._admission._end(self, index, now)

    def charge(self, num_tokens: int, now: float) -> None:
        """Count tokens that were generated for it."""
        if self._admission is not None:
            self._admission._charge(self, num_tokens, now)

    def release(self, now: float) -> None:
        """Give up everything that it still holds. Idempotent."""
        if self._admission is not None:
            self._admission._release(self, now)
