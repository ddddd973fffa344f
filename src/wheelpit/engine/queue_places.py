"""Who is where in the queue, from the order that the engine process sends now and then."""

from __future__ import annotations

from collections.abc import Iterable


class QueuePlaces:
    """The last order heard, less those that have left it since. Written only by RequestBook."""

    def __init__(self) -> None:
        self._order: dict[str, None] = {}
        self._places: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._order)

    def set_order(self, sequence_ids: Iterable[str]) -> None:
        """The engine has said who waits, first the one that goes next."""
        self._order = dict.fromkeys(sequence_ids)
        self._places = None

    def remove(self, sequence_id: str) -> None:
        """One has started, or ended; unknown ids are ignored."""
        if sequence_id in self._order:
            del self._order[sequence_id]
            self._places = None

    def num_ahead(self, sequence_id: str) -> int | None:
        """How many go first; None for one that had not come yet when the order was made."""
        if self._places is None:
            self._places = {known: place for place, known in enumerate(self._order)}
        return self._places.get(sequence_id)
