"""What a run's arrivals say: latencies of each request, their distributions, throughput.

Definitions, all seen from the client and in seconds:

- TTFT: from when the request was due (open loop) or sent (closed loop) to its first token.
- E2E: from the same start to the end of the response.
- TPOT: (E2E - TTFT) / (output tokens - 1), one value a request.
- ITL: the gap before every token after the first arrival. An arrival that holds m tokens, be it one
  chunk or several chunks in one read of the socket, gives m values of a m-th of its gap. How many
  tokens a chunk holds is not in the protocol: when the server's usage differs from the number of
  chunks with tokens, these are spread evenly over the chunks.

Output tokens are the server's usage, or the number of chunks with tokens where it sends none.

A request that the server refused (429, 503), or ended because its own time was over, is no error:
the server did what it should. Neither is a success, and neither is in the latencies.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

REFUSALS = frozenset({"429", "503"})


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as the client saw it. `error` is a status or a word, None on success.

    `missed_deadline` names the one that ended it. `retry_after_s` came with a refusal.
    """

    index: int
    started_s: float
    ended_s: float
    arrival_times_s: tuple[float, ...]
    arrival_events: tuple[int, ...]
    num_input_tokens: int | None
    num_usage_tokens: int | None
    finish_reason: str | None
    error: str | None
    late_s: float = 0.0
    missed_deadline: str | None = None
    retry_after_s: float | None = None

    @property
    def is_refused(self) -> bool:
        """Say whether the server had too much to do to take it."""
        return self.error in REFUSALS

    @property
    def is_success(self) -> bool:
        """Say whether it was answered in full."""
        return self.error is None and self.missed_deadline is None

    @property
    def num_output_tokens(self) -> int:
        """Return the output tokens by usage, else by chunks."""
        if self.num_usage_tokens is not None:
            return self.num_usage_tokens
        return sum(self.arrival_events)

    @property
    def ttft_s(self) -> float:
        """Return the time to the first token; an answer without any chunk has it at its end."""
        first_s = self.arrival_times_s[0] if self.arrival_times_s else self.ended_s
        return first_s - self.started_s

    @property
    def e2e_s(self) -> float:
        """Return the time to the end of the response."""
        return self.ended_s - self.started_s

    @property
    def tpot_s(self) -> float | None:
        """Return the mean time per token after the first, None for an answer of one token."""
        num_later_tokens = self.num_output_tokens - 1
        return (self.e2e_s - self.ttft_s) / num_later_tokens if num_later_tokens > 0 else None

    def inter_token_latencies_s(self) -> list[float]:
        """Return one latency for each token after those of the first arrival."""
        num_events = sum(self.arrival_events)
        if num_events == 0:
            return []
        latencies_s: list[float] = []
        tokens_per_event = self.num_output_tokens / num_events
        num_events_seen = self.arrival_events[0]
        num_tokens_seen = max(1, round(num_events_seen * tokens_per_event))
        last_s = self.arrival_times_s[0]
        for time_s, events in zip(self.arrival_times_s[1:], self.arrival_events[1:], strict=True):
            num_events_seen += events
            num_tokens = round(num_events_seen * tokens_per_event) - num_tokens_seen
            if num_tokens > 0:  # else more chunks than tokens: the gap counts with the next one
                latencies_s += [(time_s - last_s) / num_tokens] * num_tokens
                num_tokens_seen += num_tokens
                last_s = time_s
        return latencies_s


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean, median and 99th percentile, in milliseconds."""

    mean: float
    p50: float
    p99: float

    @classmethod
    def of_seconds(cls, values_s: Sequence[float]) -> "Distribution | None":
        """Summarize values in seconds; None when there are none."""
        if not values_s:
            return None
        ordered = sorted(values_s)
        return cls(
            mean=1e3 * sum(ordered) / len(ordered),
            p50=1e3 * percentile(ordered, 50),
            p99=1e3 * percentile(ordered, 99),
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """One run. Rates count successful requests only, over the span from first start to last end."""

    num_requests: int
    num_succeeded: int
    refused: dict[str, int]
    """By status."""
    retry_after_s: float | None
    """The median of what those that were refused were told."""
    timed_out: dict[str, int]
    """By the deadline that they missed."""
    errors: dict[str, int]
    """All others that failed, by status or by word."""
    finish_reasons: dict[str, int]
    is_counted_by_usage: bool
    duration_s: float
    num_input_tokens: int
    num_output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    tpot_ms: Distribution | None
    e2e_ms: Distribution | None
    max_late_ms: float
    client_cpu_us_per_token: float | None


def summarize(records: Sequence[RequestRecord], client_cpu_s: float) -> Summary:
    """Summarize a run; `client_cpu_s` is the processor time that the load generator itself took."""
    done = [record for record in records if record.is_success]
    refused = [record for record in records if record.is_refused]
    waits_s = sorted(r.retry_after_s for r in refused if r.retry_after_s is not None)
    duration_s = max(r.ended_s for r in records) - min(r.started_s for r in records)
    num_input_tokens = sum(record.num_input_tokens or 0 for record in done)
    num_output_tokens = sum(record.num_output_tokens for record in done)
    rate = 1 / duration_s if duration_s > 0 else 0.0
    return Summary(
        num_requests=len(records),
        num_succeeded=len(done),
        refused=dict(Counter(r.error for r in refused if r.error is not None)),
        retry_after_s=percentile(waits_s, 50) if waits_s else None,
        timed_out=dict(
            Counter(r.missed_deadline for r in records if r.missed_deadline is not None)
        ),
        errors=dict(
            Counter(
                r.error
                for r in records
                if r.error is not None and not (r.is_refused or r.missed_deadline)
            )
        ),
        finish_reasons=dict(Counter(r.finish_reason or "none" for r in done)),
        is_counted_by_usage=all(record.num_usage_tokens is not None for record in done),
        duration_s=duration_s,
        num_input_tokens=num_input_tokens,
        num_output_tokens=num_output_tokens,
        requests_per_s=len(done) * rate,
        output_tokens_per_s=num_output_tokens * rate,
        total_tokens_per_s=(num_input_tokens + num_output_tokens) * rate,
        ttft_ms=Distribution.of_seconds([record.ttft_s for record in done]),
        itl_ms=Distribution.of_seconds(
            [latency_s for record in done for latency_s in record.inter_token_latencies_s()]
        ),
        tpot_ms=Distribution.of_seconds([r.tpot_s for r in done if r.tpot_s is not None]),
        e2e_ms=Distribution.of_seconds([record.e2e_s for record in done]),
        max_late_ms=1e3 * max(record.late_s for record in records),
        client_cpu_us_per_token=1e6 * client_cpu_s / num_output_tokens
        if num_output_tokens
        else None,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Interpolate linearly between the closest ranks of an ascending, non-empty sequence."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
