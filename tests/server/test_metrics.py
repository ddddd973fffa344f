"""/metrics: names, labels and the rules of counting."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.server.conftest import MakeServer, RunningServer
from wheelpit.server.options import ServerOptions

GAUGES = (
    "num_requests_running",
    "num_requests_waiting",
    "num_requests_waiting_by_reason",
    "kv_cache_usage_perc",
    "engine_sleep_state",
    "cache_config_info",
)
COUNTERS = (
    "prefix_cache_queries",
    "prefix_cache_hits",
    "external_prefix_cache_queries",
    "external_prefix_cache_hits",
    "mm_cache_queries",
    "mm_cache_hits",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "prompt_tokens_by_source",
    "prompt_tokens_cached",
    "request_success",
)
PER_REQUEST = (
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_inference_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_params_max_tokens",
    "request_params_n",
    "request_prefill_kv_computed_tokens",
    "request_time_per_output_token_seconds",
    "time_to_first_token_seconds",
)
HISTOGRAMS = (*PER_REQUEST, "iteration_tokens_total", "inter_token_latency_seconds")


@pytest.mark.parametrize("prefix", ["wheelpit", "vllm"])
def test_every_series_exists_from_the_first_scrape(
    make_server: MakeServer, prefix: Literal["wheelpit", "vllm"]
) -> None:
    running = make_server(ServerOptions(metrics_prefix=prefix, served_model_names=("a", "b")))
    text = running.metrics()
    for name in GAUGES:
        running.metric(text, f"{prefix}:{name}", engine="0")
    for name in COUNTERS:
        assert running.metric(text, f"{prefix}:{name}_total", model_name="a", engine="0") == 0
    for name in HISTOGRAMS:
        labels = {"model_name": "a", "engine": "0"}
        assert running.metric(text, f"{prefix}:{name}_count", **labels) == 0
        assert running.metric(text, f"{prefix}:{name}_sum", **labels) == 0
        assert running.metric(text, f"{prefix}:{name}_bucket", le="+Inf", **labels) == 0
    for reason in ("stop", "length", "abort", "error", "repetition"):
        name = f"{prefix}:request_success_total"
        assert running.metric(text, name, finished_reason=reason) == 0
    for source in ("local_compute", "local_cache_hit", "external_kv_transfer"):
        assert running.metric(text, f"{prefix}:prompt_tokens_by_source_total", source=source) == 0
    assert running.metric(text, "process_resident_memory_bytes") > 0
    assert running.metric(text, "python_info") == 1


def test_the_buckets_are_those_that_dashboards_expect(server: RunningServer) -> None:
    text = server.metrics()
    for name, bound in (
        ("time_to_first_token_seconds", "0.001"),
        ("time_to_first_token_seconds", "2560.0"),
        ("inter_token_latency_seconds", "0.025"),
        ("e2e_request_latency_seconds", "7680.0"),
        ("iteration_tokens_total", "16384.0"),
        ("request_prompt_tokens", "200.0"),
        ("request_params_n", "20.0"),
    ):
        server.metric(text, f"wheelpit:{name}_bucket", le=bound)
    with pytest.raises(KeyError):
        server.metric(text, "wheelpit:request_prompt_tokens_bucket", le="500.0")


@pytest.mark.parametrize("stream", [False, True])
def test_counts_follow_the_requests_exactly(make_server: MakeServer, stream: bool) -> None:
    """N requests one after another, P prompt tokens and M new tokens each."""
    running = make_server(enable_prefix_caching=False)
    num_requests, num_prompt, num_new = 10, 7, 5
    for _ in range(num_requests):
        response = running.complete(
            prompt="x" * num_prompt, max_tokens=num_new, ignore_eos=True, stream=stream
        )
        assert response.status_code == 200
    text = running.metrics()

    def value(name: str, **labels: str) -> float:
        return running.metric(text, f"wheelpit:{name}", **labels)

    for name in PER_REQUEST:
        assert value(f"{name}_count") == num_requests, name
    assert value("inter_token_latency_seconds_count") == num_requests * (num_new - 1)
    assert value("iteration_tokens_total_count") == num_requests * num_new
    assert value("iteration_tokens_total_sum") == num_requests * (num_prompt + num_new)
    assert value("prompt_tokens_total") == num_requests * num_prompt
    assert value("generation_tokens_total") == num_requests * num_new
    assert value("request_success_total") == num_requests
    assert value("request_success_total", finished_reason="length") == num_requests
    assert value("request_prompt_tokens_sum") == num_requests * num_prompt
    assert value("request_generation_tokens_sum") == num_requests * num_new
    assert value("request_params_max_tokens_sum") == num_requests * num_new
    assert value("prompt_tokens_by_source_total", source="local_compute") == (
        num_requests * num_prompt
    )


def test_cached_prompt_tokens_are_counted_apart(make_server: MakeServer) -> None:
    running = make_server()
    for _ in range(2):
        running.complete(prompt="y" * 40)
    text = running.metrics()
    assert running.metric(text, "wheelpit:prompt_tokens_total") == 80
    assert running.metric(text, "wheelpit:prompt_tokens_cached_total") == 32
    source = {"source": "local_cache_hit"}
    assert running.metric(text, "wheelpit:prompt_tokens_by_source_total", **source) == 32
    assert running.metric(text, "wheelpit:prefix_cache_hits_total") == 32


def test_http_requests_are_counted_by_route(make_server: MakeServer) -> None:
    running = make_server()
    running.chat()
    running.chat(n=0)
    running.client.get("/v1/models/x")
    for path in ("/nothing", "/else", "/health", "/metrics"):
        running.client.get(path)
    text = running.metrics()

    def count(**labels: str) -> float:
        return running.metric(text, "http_requests_total", **labels)

    assert count(handler="/v1/chat/completions", method="POST", status="2xx") == 1
    assert count(handler="/v1/chat/completions", status="4xx") == 1
    assert count(handler="/v1/models/{name:path}", status="4xx") == 1
    assert count(handler="none", status="4xx") == 2
    with pytest.raises(KeyError):
        count(handler="/health")
