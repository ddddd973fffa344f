"""What Prometheus scrapes: the engine's counters, gauges and histograms under vLLM's names.

The engine calls `EngineMetrics` (a `StatLogger`) once a step and once a finished request; a scrape
reads it through `collect()`. Every series exists from the first scrape on. Gauges are read from
the engine's snapshot at the scrape, so they are right when no step runs any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from wheelpit.engine.stats import FinishedRequest, FrontEndStats, StepRecord
from wheelpit.server.histogram import Histogram, one_two_five

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition", "refused")
REFUSALS = ("queue_full", "queue_tokens", "deadline", "tenant_queue", "tenant_rate", "draining")
"""Reasons of an OverloadedError. Requests that were at fault themselves are no sign of overload."""
TIMEOUTS = ("timeout", "queue_timeout", "ttft_timeout")

TTFT_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BOUNDS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
REQUEST_BOUNDS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
STEP_TOKENS_BOUNDS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
N_BOUNDS = (1, 2, 5, 10, 20)


class EngineMetrics(Collector):
    """The series of one engine. Written only on the event loop's thread."""

    def __init__(
        self,
        *,
        prefix: str,
        model_name: str,
        max_model_len: int,
        stats: Callable[[], FrontEndStats],
        cache_info: Mapping[str, str],
    ) -> None:
        self._prefix = prefix
        self._labels = {"model_name": model_name, "engine": "0"}
        self._stats = stats
        self._cache_info = dict(cache_info)
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_generation_tokens = 0
        self._num_finished = dict.fromkeys(FINISH_REASONS, 0)
        self._num_refused = dict.fromkeys(REFUSALS, 0)
        self._num_timeouts = dict.fromkeys(TIMEOUTS, 0)

        tokens = one_two_five(max_model_len)
        self._step_tokens = Histogram(STEP_TOKENS_BOUNDS)
        self._ttft_s = Histogram(TTFT_BOUNDS_S)
        self._itl_s = Histogram(ITL_BOUNDS_S)
        self._tpot_s = Histogram(ITL_BOUNDS_S)
        self._e2e_s = Histogram(REQUEST_BOUNDS_S)
        self._queue_s = Histogram(REQUEST_BOUNDS_S)
        self._inference_s = Histogram(REQUEST_BOUNDS_S)
        self._prefill_s = Histogram(REQUEST_BOUNDS_S)
        self._decode_s = Histogram(REQUEST_BOUNDS_S)
        self._prompt_tokens = Histogram(tokens)
        self._generation_tokens = Histogram(tokens)
        self._max_generation_tokens = Histogram(tokens)
        self._max_tokens = Histogram(tokens)
        self._computed_tokens = Histogram(tokens)
        self._n = Histogram(N_BOUNDS)

    def on_step(self, record: StepRecord) -> None:
        """Count what one step brought."""
        self._num_prompt_tokens += record.num_prompt_tokens
        self._num_cached_tokens += record.num_cached_tokens
        self._num_generation_tokens += record.num_generation_tokens
        num_tokens = record.num_prompt_tokens + record.num_generation_tokens
        if num_tokens:
            self._step_tokens.observe(num_tokens)
        self._ttft_s.observe_all(record.ttfts_s)
        self._itl_s.observe_all(record.itls_s)

    def on_request_finished(self, record: FinishedRequest) -> None:
        """Count one request; phases that it never reached are not observed."""
        reasons = self._num_finished
        reasons[record.finish_reason] = reasons.get(record.finish_reason, 0) + 1
        for counts in (self._num_refused, self._num_timeouts):
            if record.stop_reason in counts:
                counts[record.stop_reason] += 1
        if record.finish_reason == "refused":
            return
        self._e2e_s.observe(record.e2e_s)
        for histogram, seconds in (
            (self._queue_s, record.queue_s),
            (self._prefill_s, record.prefill_s),
            (self._decode_s, record.decode_s),
            (self._inference_s, record.inference_s),
            (self._tpot_s, record.time_per_output_token_s),
        ):
            if seconds is not None:
                histogram.observe(seconds)
        self._prompt_tokens.observe(record.num_prompt_tokens)
        self._generation_tokens.observe(record.num_generation_tokens)
        self._max_generation_tokens.observe(record.max_num_generation_tokens)
        self._computed_tokens.observe(record.num_prompt_tokens - record.num_cached_tokens)
        if record.max_tokens is not None:
            self._max_tokens.observe(record.max_tokens)
        self._n.observe(record.n)

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the registry at each scrape."""
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()

    def _gauges(self) -> Iterator[Metric]:
        engine = self._stats().engine
        yield self._gauge("num_requests_running", "Requests in the batch.", engine.num_running)
        yield self._gauge("num_requests_waiting", "Requests queued.", engine.num_waiting)
        waiting = GaugeMetricFamily(
            f"{self._prefix}:num_requests_waiting_by_reason",
            "Requests queued, by what they wait for.",
            labels=[*self._labels, "reason"],
        )
        for reason, count in (("capacity", engine.num_waiting), ("deferred", 0)):
            waiting.add_metric([*self._labels.values(), reason], count)
        yield waiting
        yield from self._admission_gauges()
        yield self._gauge(
            "kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", engine.kv_cache_usage
        )
        sleep = GaugeMetricFamily(
            f"{self._prefix}:engine_sleep_state",
            "1 for the state the engine is in.",
            labels=[*self._labels, "sleep_state"],
        )
        for state, value in (("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)):
            sleep.add_metric([*self._labels.values(), state], value)
        yield sleep
        info = GaugeMetricFamily(
            f"{self._prefix}:cache_config_info",
            "The configuration of the KV cache, as labels.",
            labels=[*self._cache_info, "engine"],
        )
        info.add_metric([*self._cache_info.values(), self._labels["engine"]], 1)
        yield info

    def _admission_gauges(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, text, value in (
            ("num_queued_reqs", "Sequences admitted that never ran.", stats.num_queued),
            ("num_queued_tokens", "Their prompt tokens.", stats.num_queued_tokens),
            (
                "queue_drain_rate",
                "Queued sequences that start in a second while all seats are taken, or NaN.",
                math.nan if stats.drain_rate is None else stats.drain_rate,
            ),
        ):
            yield self._gauge(name, text, value)

    def _counters(self) -> Iterator[Metric]:
        engine = self._stats().engine
        num_computed = self._num_prompt_tokens - self._num_cached_tokens
        plain = (
            ("prefix_cache_queries", "Prompt tokens looked up.", engine.prefix_cache_queries),
            ("prefix_cache_hits", "Prompt tokens found cached.", engine.prefix_cache_hits),
            ("external_prefix_cache_queries", "No external cache: always 0.", 0),
            ("external_prefix_cache_hits", "No external cache: always 0.", 0),
            ("mm_cache_queries", "No multimodal cache: always 0.", 0),
            ("mm_cache_hits", "No multimodal cache: always 0.", 0),
            ("num_preemptions", "Sequences preempted.", engine.num_preemptions),
            ("prompt_tokens", "Prompt tokens processed.", self._num_prompt_tokens),
            ("prompt_tokens_cached", "Prompt tokens not computed.", self._num_cached_tokens),
            ("generation_tokens", "Tokens generated.", self._num_generation_tokens),
        )
        for name, text, value in plain:
            yield self._counter(name, text, {(): value}, ())
        yield self._counter(
            "prompt_tokens_by_source",
            "Prompt tokens, by where their keys and values came from.",
            {
                ("local_compute",): num_computed,
                ("local_cache_hit",): self._num_cached_tokens,
                ("external_kv_transfer",): 0,
            },
            ("source",),
        )
        for name, text, counts, label in (
            ("request_success", "Requests, by end.", self._num_finished, "finished_reason"),
            ("admission_rejections", "Requests refused, by reason.", self._num_refused, "reason"),
            ("request_timeouts", "Requests that missed a deadline.", self._num_timeouts, "kind"),
        ):
            values: dict[tuple[str, ...], float] = {(key,): num for key, num in counts.items()}
            yield self._counter(name, text, values, (label,))

    def _histograms(self) -> Iterator[Metric]:
        for name, text, histogram in (
            ("iteration_tokens_total", "Tokens of one step.", self._step_tokens),
            ("time_to_first_token_seconds", "Arrival to first token.", self._ttft_s),
            ("inter_token_latency_seconds", "Between two tokens of a sequence.", self._itl_s),
            ("request_time_per_output_token_seconds", "Mean gap of a request.", self._tpot_s),
            ("e2e_request_latency_seconds", "Arrival to end.", self._e2e_s),
            ("request_queue_time_seconds", "Arrival to first scheduled.", self._queue_s),
            ("request_inference_time_seconds", "Scheduled to last token.", self._inference_s),
            ("request_prefill_time_seconds", "Scheduled to first token.", self._prefill_s),
            ("request_decode_time_seconds", "First to last token.", self._decode_s),
            ("request_prompt_tokens", "Prompt tokens of a request.", self._prompt_tokens),
            ("request_generation_tokens", "Tokens it generated.", self._generation_tokens),
            (
                "request_max_num_generation_tokens",
                "Tokens of a request's longest completion.",
                self._max_generation_tokens,
            ),
            ("request_params_max_tokens", "max_tokens asked for.", self._max_tokens),
            (
                "request_prefill_kv_computed_tokens",
                "Prompt tokens computed, without cached ones.",
                self._computed_tokens,
            ),
            ("request_params_n", "n asked for.", self._n),
        ):
            family = HistogramMetricFamily(
                f"{self._prefix}:{name}", text, labels=list(self._labels)
            )
            family.add_metric(
                list(self._labels.values()), histogram.cumulative, sum_value=histogram.sum
            )
            yield family

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"{self._prefix}:{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(
        self,
        name: str,
        text: str,
        values: Mapping[tuple[str, ...], float],
        extra_labels: tuple[str, ...],
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(
            f"{self._prefix}:{name}", text, labels=[*self._labels, *extra_labels]
        )
        for extra, value in values.items():
            family.add_metric([*self._labels.values(), *extra], value)
        return family


def new_registry(*collectors: Collector) -> CollectorRegistry:
    """A registry of these, the process and the interpreter; nothing global is touched."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The scrape's body in Prometheus' text format."""
    return generate_latest(registry)
