"""Latencies and distributions computed from arrivals whose answers are known."""

import pytest

from wheelpit.bench.measure import Distribution, RequestRecord, percentile, summarize


def record(
    times_s: tuple[float, ...] = (1.0, 2.0, 3.0),
    events: tuple[int, ...] | None = None,
    usage: int | None = 3,
    ended_s: float = 3.0,
    error: str | None = None,
) -> RequestRecord:
    return RequestRecord(
        index=0,
        started_s=0.0,
        ended_s=ended_s,
        arrival_times_s=times_s,
        arrival_events=events or (1,) * len(times_s),
        num_input_tokens=10,
        num_usage_tokens=usage,
        finish_reason="length",
        error=error,
    )


def test_percentiles_interpolate_between_ranks() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert percentile(values, 50) == 3.0
    assert percentile(values, 99) == pytest.approx(4.96)
    assert percentile(values, 100) == 5.0
    assert percentile([7.0], 99) == 7.0


def test_distribution_is_in_milliseconds_and_absent_without_values() -> None:
    values = Distribution.of_seconds([0.003, 0.001])
    assert values is not None
    assert (values.mean, values.p50) == (2.0, 2.0)
    assert values.p99 == pytest.approx(2.98)
    assert Distribution.of_seconds([]) is None


def test_one_token_a_chunk_gives_one_latency_a_gap() -> None:
    one = record(times_s=(1.0, 1.5, 3.0))
    assert one.ttft_s == 1.0
    assert one.inter_token_latencies_s() == [0.5, 1.5]
    assert one.tpot_s == 1.0


def test_chunks_of_several_tokens_share_their_gap() -> None:
    one = record(times_s=(1.0, 2.0, 3.0), usage=6)
    assert one.inter_token_latencies_s() == [0.5] * 4


def test_chunks_in_one_read_share_their_gap() -> None:
    one = record(times_s=(1.0, 3.0), events=(1, 4), usage=5)
    assert one.inter_token_latencies_s() == [0.5] * 4


def test_more_chunks_than_tokens_merge_their_gaps() -> None:
    one = record(times_s=(1.0, 2.0, 3.0, 4.0), usage=2)
    latencies_s = one.inter_token_latencies_s()
    assert len(latencies_s) == 1
    assert 1.0 <= latencies_s[0] <= 3.0


def test_without_usage_chunks_are_counted() -> None:
    one = record(usage=None)
    assert one.num_output_tokens == 3
    assert not summarize([one], client_cpu_s=0.0).is_counted_by_usage


def test_an_answer_without_text_has_its_first_token_at_its_end() -> None:
    one = record(times_s=(), events=(), usage=1, ended_s=2.0)
    assert one.ttft_s == 2.0
    assert one.tpot_s is None
    assert one.inter_token_latencies_s() == []


def test_failed_requests_are_counted_and_their_tokens_are_not() -> None:
    summary = summarize([record(), record(error="500"), record(error="500")], client_cpu_s=3e-6)
    assert summary.num_requests == 3
    assert summary.num_succeeded == 1
    assert summary.errors == {"500": 2}
    assert summary.num_output_tokens == 3
    assert summary.output_tokens_per_s == pytest.approx(1.0)
    assert summary.total_tokens_per_s == pytest.approx(13 / 3)
    assert summary.client_cpu_us_per_token == pytest.approx(1.0)


def test_a_run_of_failures_has_no_latencies() -> None:
    summary = summarize([record(error="timeout")], client_cpu_s=1.0)
    assert summary.ttft_ms is None
    assert summary.client_cpu_us_per_token is None
