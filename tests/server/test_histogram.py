"""The histogram against prometheus_client's own."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram

from wheelpit.server.histogram import Histogram, one_two_five

BOUNDS = (0.1, 1, 2.5, 10)


@given(values=st.lists(st.floats(-1, 20) | st.sampled_from(BOUNDS), max_size=50))
def test_it_counts_as_prometheus_client_does(values: list[float]) -> None:
    ours = Histogram(BOUNDS)
    theirs = TheirHistogram("x", "x", buckets=BOUNDS, registry=CollectorRegistry())
    ours.observe_all(values)
    for value in values:
        theirs.observe(value)
    samples = [sample for family in theirs.collect() for sample in family.samples]
    expected = [(s.labels["le"], s.value) for s in samples if s.name == "x_bucket"]
    assert ours.cumulative == expected
    assert ours.sum == pytest.approx(sum(values))


def test_one_two_five_goes_up_to_the_limit() -> None:
    assert one_two_five(256) == [1, 2, 5, 10, 20, 50, 100, 200]
    assert one_two_five(20) == [1, 2, 5, 10, 20]
    assert one_two_five(1) == [1]
