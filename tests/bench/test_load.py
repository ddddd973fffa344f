"""Whole runs against a scripted server on a real socket."""

import asyncio
import io
import json
import time
from dataclasses import replace

import pytest
from rich.console import Console

from tests.bench.fake_openai import Answer, FakeOpenAI
from wheelpit.bench.http_stream import HttpClient
from wheelpit.bench.load import LoadPlan, run_load, run_open_loop
from wheelpit.bench.report import json_line, latency_table, throughput_table
from wheelpit.bench.target import PromptFormat, TargetError
from wheelpit.bench.workload import BenchRequest, Endpoint, LengthRange, Workload
from wheelpit.errors import ConfigError

SMALL = Workload(num_prompts=8, input_tokens=LengthRange(20, 20), output_tokens=LengthRange(3, 3))


def plan_for(server: FakeOpenAI) -> LoadPlan:
    return LoadPlan(server.url, concurrency=4, num_warmup=1, timeout_s=5.0)


async def test_a_closed_loop_keeps_its_concurrency_and_counts_by_usage() -> None:
    async with FakeOpenAI([Answer(gap_s=0.01)]) as server:
        result = await run_load(plan_for(server), SMALL)
    summary = result.summary
    assert (result.model, result.prompts) == ("fake", "token ids")
    assert (summary.num_succeeded, summary.errors) == (8, {})
    assert summary.finish_reasons == {"length": 8}
    assert (summary.num_input_tokens, summary.num_output_tokens) == (160, 24)
    assert summary.is_counted_by_usage
    assert server.max_in_flight == 4
    assert summary.ttft_ms is not None
    assert summary.itl_ms is not None
    assert summary.ttft_ms.p50 >= 9
    assert summary.itl_ms.p50 >= 9
    # one warm-up and one probe before eight requests, all with prompts of their own
    prompts = [tuple(body["prompt"]) for body in server.generations]
    assert len(prompts) == len(set(prompts)) == 10
    assert all(len(prompt) == 20 for prompt in prompts[1:])


async def test_connections_are_kept_alive() -> None:
    async with FakeOpenAI() as server:
        await run_load(plan_for(server), SMALL)
        assert server.num_connections <= 4


async def test_chunks_of_several_tokens_are_divided_by_the_usage() -> None:
    async with FakeOpenAI([Answer(("ab", "cd"), num_tokens=4, gap_s=0.02)]) as server:
        result = await run_load(replace(plan_for(server), concurrency=1), SMALL)
    assert result.summary.num_output_tokens == 32
    assert result.summary.itl_ms is not None
    assert 9 <= result.summary.itl_ms.p50 < 20


async def test_errors_are_counted_by_status_and_kind() -> None:
    answers = [
        Answer(),  # the warm-up
        Answer(status=500),
        Answer(status=400),
        Answer(status=400),
        Answer(stream_error="engine died"),
        Answer(breaks_off=True),
        Answer(),
    ]
    async with FakeOpenAI(answers) as server:
        result = await run_load(replace(plan_for(server), concurrency=1), SMALL)
    assert result.summary.errors == {
        "500": 1,
        "400": 2,
        "error in stream": 1,
        "ConnectionResetError": 1,
    }
    assert (result.summary.refused, result.summary.timed_out) == ({}, {})
    assert result.summary.num_succeeded == 3
    assert result.summary.num_output_tokens == 9


async def test_refused_and_timed_out_requests_are_no_errors() -> None:
    answers = [
        Answer(),  # the warm-up
        Answer(status=429, retry_after="3"),
        Answer(status=429, retry_after="7"),
        Answer(status=503),
        Answer(status=504, reason="queue_timeout"),
        Answer(status=504),
        Answer(("a",), finish_reason="abort", stop_reason="timeout"),
        Answer(("a",), finish_reason="abort"),
        Answer(),
    ]
    async with FakeOpenAI(answers) as server:
        result = await run_load(replace(plan_for(server), concurrency=1), SMALL)
    summary = result.summary
    assert summary.errors == {}
    assert summary.refused == {"429": 2, "503": 1}
    assert summary.retry_after_s == 5
    assert summary.timed_out == {"queue_timeout": 1, "504": 1, "timeout": 1}
    # One that was cancelled from outside has what it has.
    assert summary.finish_reasons == {"abort": 1, "length": 1}
    assert (summary.num_succeeded, summary.num_output_tokens) == (2, 4)
    console = Console(file=io.StringIO(), width=100)
    console.print(throughput_table(result))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "2 x 429, 1 x 503, to retry after 5 s" in text
    assert "1 x queue_timeout" in text


async def test_deadlines_are_sent_with_every_request() -> None:
    async with FakeOpenAI() as server:
        await run_load(plan_for(server), replace(SMALL, timeout=9.0, ttft_timeout=1.5))
        sent = [(b["timeout"], b["ttft_timeout"], "queue_timeout" in b) for b in server.generations]
    assert set(sent) == {(9.0, 1.5, False)}
    with pytest.raises(ConfigError, match="queue_timeout"):
        replace(SMALL, queue_timeout=0)


async def test_comments_in_a_stream_are_no_tokens() -> None:
    async with FakeOpenAI([Answer(comments=(": queued position=3 eta_ms=1200",))]) as server:
        result = await run_load(plan_for(server), SMALL)
    assert result.summary.num_succeeded == 8
    assert result.summary.num_output_tokens == 24


async def test_a_silent_server_is_a_timeout() -> None:
    async with FakeOpenAI([Answer(gap_s=30.0)]) as server:
        plan = replace(plan_for(server), timeout_s=0.2, num_warmup=0)
        result = await run_load(plan, replace(SMALL, num_prompts=2))
    assert result.summary.errors == {"timeout": 2}


async def test_without_usage_chunks_are_counted() -> None:
    async with FakeOpenAI([Answer(sends_usage=False)]) as server:
        result = await run_load(plan_for(server), SMALL)
    assert not result.summary.is_counted_by_usage
    assert result.summary.num_output_tokens == 24


@pytest.mark.parametrize("answer", [Answer(split_at=9), Answer(line_end="\r\n")])
async def test_torn_events_and_other_line_ends_are_read(answer: Answer) -> None:
    async with FakeOpenAI([answer]) as server:
        result = await run_load(plan_for(server), SMALL)
    assert result.summary.num_succeeded == 8
    assert result.summary.num_output_tokens == 24


async def test_an_open_loop_sends_at_the_drawn_times_without_waiting_for_answers() -> None:
    async with FakeOpenAI([Answer(gap_s=0.05)]) as server:
        client = HttpClient(server.url, clock=time.perf_counter, api_key=None, timeout_s=5.0)
        body = b'{"prompt": "a", "max_tokens": 3}'
        requests = [BenchRequest(i, "/v1/completions", body) for i in range(4)]
        arrivals_s = [0.0, 0.02, 0.03, 0.06]
        records = await run_open_loop(client, requests, arrivals_s, time.perf_counter)
        client.close()
    first_s = records[0].started_s
    assert [record.started_s - first_s for record in records] == pytest.approx(arrivals_s)
    assert server.max_in_flight == 4
    assert all(record.error is None for record in records)


async def test_a_request_rate_makes_the_run_an_open_loop() -> None:
    async with FakeOpenAI([Answer(gap_s=0.02)]) as server:
        result = await run_load(replace(plan_for(server), request_rate=1000.0), SMALL)
        assert result.summary.num_succeeded == 8
        assert server.max_in_flight > 4


async def test_text_is_calibrated_for_chat_and_for_servers_that_take_no_ids() -> None:
    async with FakeOpenAI(takes_ids=False) as server:
        result = await run_load(plan_for(server), SMALL)
        assert result.prompts == "text, calibrated"
        assert result.summary.num_input_tokens == 8 * 20
    async with FakeOpenAI(has_tokenize=False) as server:
        workload = replace(SMALL, endpoint=Endpoint.CHAT, input_tokens=LengthRange(25, 25))
        result = await run_load(plan_for(server), workload)
        assert result.prompts == "text, calibrated"
        assert result.summary.num_input_tokens == 8 * 25
        assert result.summary.num_output_tokens == 24


async def test_ids_that_were_asked_for_and_are_not_taken_are_an_error() -> None:
    async with FakeOpenAI(takes_ids=False) as server:
        with pytest.raises(TargetError, match="no token ids"):
            await run_load(replace(plan_for(server), prompt_format=PromptFormat.IDS), SMALL)


async def test_no_server_is_an_error() -> None:
    async with FakeOpenAI() as server:
        url = server.url
    with pytest.raises(TargetError, match="does not answer"):
        await run_load(LoadPlan(url, timeout_s=2.0), SMALL)


async def test_the_api_key_goes_with_every_request() -> None:
    async with FakeOpenAI() as server:
        await run_load(replace(plan_for(server), api_key="secret"), SMALL)
        assert set(server.authorizations) == {"bearer secret"}


async def test_the_report_is_a_table_and_one_line_of_json() -> None:
    async with FakeOpenAI() as server:
        result = await run_load(plan_for(server), SMALL)
    line = json_line(result, {"url": server.url})
    assert "\n" not in line
    read = json.loads(line)
    assert read["num_output_tokens"] == 24
    assert read["settings"] == {"url": server.url}
    assert set(read["ttft_ms"]) == {"mean", "p50", "p99"}
    console = Console(file=io.StringIO(), width=100)
    console.print(latency_table(result), throughput_table(result))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "TTFT" in text
    assert "8 of 8" in text


async def test_a_plan_outside_its_ranges_is_refused() -> None:
    with pytest.raises(ConfigError, match="request_rate"):
        LoadPlan("http://x", request_rate=0)
    with pytest.raises(ConfigError, match="concurrency"):
        LoadPlan("http://x", concurrency=0)


async def test_cancelling_a_run_leaves_no_task_behind() -> None:
    async with FakeOpenAI([Answer(gap_s=30.0)]) as server:
        task = asyncio.create_task(run_load(replace(plan_for(server), num_warmup=0), SMALL))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) <= 2 + server.num_connections
