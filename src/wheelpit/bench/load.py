"""The two ways to put load on a server, and the run as a whole.

Closed loop: `concurrency` clients, each sending its next request when its last one ended. Open
loop: requests arrive at their own times however slow the server is, and latency counts from the
time a request was due, so that a late generator cannot hide a slow server.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wheelpit.bench.http_stream import Exchange, HttpClient
from wheelpit.bench.measure import RequestRecord, Summary, summarize
from wheelpit.bench.target import PromptFormat, choose_writer, find_model
from wheelpit.bench.workload import (
    BenchRequest,
    Workload,
    build_request,
    draw_arrivals,
    draw_lengths,
)
from wheelpit.errors import ConfigError

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Against which server and how fast. `request_rate` (requests/s) makes it an open loop."""

    url: str
    model: str | None = None
    concurrency: int = 16
    request_rate: float | None = None
    num_warmup: int = 1
    prompt_format: PromptFormat = PromptFormat.AUTO
    tokenizer_path: Path | None = None
    api_key: str | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}: give at least 1")
        if self.request_rate is not None and self.request_rate <= 0:
            raise ConfigError(f"request_rate is {self.request_rate}: give more than 0")
        if self.num_warmup < 0:
            raise ConfigError(f"warmup is {self.num_warmup}: give 0 or more")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s is {self.timeout_s}: give more than 0")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run: what was measured, on which model, with which kind of prompts."""

    model: str
    prompts: str
    summary: Summary


def run_load_blocking(plan: LoadPlan, workload: Workload) -> LoadResult:
    """Run the load on an event loop of its own: uvloop where it is installed, for its low cost."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(run_load(plan, workload))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_load(plan, workload))


async def run_load(
    plan: LoadPlan, workload: Workload, clock: Clock = time.perf_counter
) -> LoadResult:
    """Inspect the server, warm it up, run the workload and summarize it.

    Raises TargetError when the server cannot be driven at all; failed requests are only counted.
    """
    client = HttpClient(plan.url, clock=clock, api_key=plan.api_key, timeout_s=plan.timeout_s)
    try:
        model = plan.model or await find_model(client)
        write, prompts = await choose_writer(
            client, workload, model, plan.prompt_format, plan.tokenizer_path
        )
        lengths = draw_lengths(workload)
        requests = [
            build_request(workload, model, index, write(index, num_input), num_output)
            for index, (num_input, num_output) in enumerate(lengths)
        ]
        num_input, num_output = lengths[0]
        warmup = [  # indices past the workload's own: no prompt is warmed up in a prefix cache
            build_request(workload, model, index, write(index, num_input), num_output)
            for index in range(len(lengths), len(lengths) + plan.num_warmup)
        ]
        if warmup:
            await run_closed_loop(client, warmup, plan.concurrency, clock)
        cpu_before_s = time.process_time()
        if plan.request_rate is None:
            records = await run_closed_loop(client, requests, plan.concurrency, clock)
        else:
            arrivals_s = draw_arrivals(workload, plan.request_rate)
            records = await run_open_loop(client, requests, arrivals_s, clock)
        cpu_s = time.process_time() - cpu_before_s
    finally:
        client.close()
    return LoadResult(model, prompts, summarize(records, cpu_s))


async def run_closed_loop(
    client: HttpClient, requests: Sequence[BenchRequest], concurrency: int, clock: Clock
) -> list[RequestRecord]:
    """Keep `concurrency` requests in flight until all are done."""
    waiting = iter(requests)
    records: list[RequestRecord] = []

    async def one_client() -> None:
        for request in waiting:
            records.append(await send(client, request, clock(), clock))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(requests))):
            group.create_task(one_client())
    return records


async def run_open_loop(
    client: HttpClient,
    requests: Sequence[BenchRequest],
    arrivals_s: Sequence[float],
    clock: Clock,
) -> list[RequestRecord]:
    """Send each request at its arrival time, in seconds from now."""
    start_s = clock()
    tasks: list[asyncio.Task[RequestRecord]] = []
    async with asyncio.TaskGroup() as group:
        for request, arrival_s in zip(requests, arrivals_s, strict=True):
            due_s = start_s + arrival_s
            if (wait_s := due_s - clock()) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(group.create_task(send(client, request, due_s, clock)))
    return [task.result() for task in tasks]


async def send(
    client: HttpClient, request: BenchRequest, due_s: float, clock: Clock
) -> RequestRecord:
    """Send one request; whatever goes wrong becomes the record's `error`, by status or by word."""
    late_s = max(0.0, clock() - due_s)
    try:
        exchange = await client.post(request.path, request.body, is_stream=True)
    except TimeoutError:
        return _failed(request, due_s, clock(), late_s, "timeout")
    except OSError as error:
        return _failed(request, due_s, clock(), late_s, type(error).__name__)
    usage = exchange.usage
    return RequestRecord(
        index=request.index,
        started_s=due_s,
        ended_s=exchange.ended_s,
        arrival_times_s=exchange.arrival_times_s,
        arrival_events=exchange.arrival_events,
        num_input_tokens=usage.prompt_tokens if usage else None,
        num_usage_tokens=usage.completion_tokens if usage else None,
        finish_reason=exchange.finish_reason,
        error=_error_of(exchange),
        missed_deadline=_missed_deadline_of(exchange),
        retry_after_s=exchange.retry_after_s,
        late_s=late_s,
    )


def _missed_deadline_of(exchange: Exchange) -> str | None:
    """Which of a request's own deadlines ended it: without any answer, or in the middle of one."""
    if exchange.status == 504:
        return _reason_of(exchange.body) or "504"
    if exchange.finish_reason == "abort":
        return exchange.stop_reason
    return None


def _reason_of(body: bytes) -> str | None:
    try:
        reason = json.loads(body)["error"]["reason"]
    except (ValueError, KeyError, TypeError):
        return None
    return reason if isinstance(reason, str) else None


def _error_of(exchange: Exchange) -> str | None:
    if exchange.status != 200:
        return str(exchange.status)
    if exchange.stream_error is not None:
        return "error in stream"
    return None


def _failed(
    request: BenchRequest, due_s: float, ended_s: float, late_s: float, error: str
) -> RequestRecord:
    return RequestRecord(
        index=request.index,
        started_s=due_s,
        ended_s=ended_s,
        arrival_times_s=(),
        arrival_events=(),
        num_input_tokens=None,
        num_usage_tokens=None,
        finish_reason=None,
        error=error,
        late_s=late_s,
    )
