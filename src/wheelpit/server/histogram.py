"""A histogram that costs a fraction of a microsecond to observe; written by `metrics.py`.

prometheus_client's own walks the buckets in Python and takes a lock for each value, which is too
much for something observed once per token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence


class Histogram:
    """Counts per bucket, and the sum. Written only on the event loop's thread."""

    __slots__ = ("_bounds", "_counts", "_labels", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(float(bound) for bound in bounds)
        self._labels = [_label(bound) for bound in self._bounds] + ["+Inf"]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a bucket's bound belongs to the bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        for value in values:
            self.observe(value)

    @property
    def sum(self) -> float:
        return self._sum

    @property
    def cumulative(self) -> list[tuple[str, float]]:
        """(bound, number of values up to it), as Prometheus wants them."""
        total = 0
        pairs: list[tuple[str, float]] = []
        for label, count in zip(self._labels, self._counts, strict=True):
            total += count
            pairs.append((label, float(total)))
        return pairs


def one_two_five(limit: int) -> list[float]:
    """1, 2, 5, 10, 20, 50 ... up to `limit`."""
    bounds: list[float] = []
    decade = 1
    while True:
        for mantissa in (1, 2, 5):
            if mantissa * decade > limit:
                return bounds or [1.0]
            bounds.append(float(mantissa * decade))
        decade *= 10


def _label(bound: float) -> str:
    """As prometheus_client writes bounds: always with a decimal point."""
    return repr(float(bound))
