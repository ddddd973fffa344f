"""When there is too much work: what Wheelpit promises under load, over HTTP, with a real model.

    python benchmarks/traffic.py [--only overload ...] [--seconds 30]

Each experiment starts a server of its own with 16 seats, first measures what it sustains, and then
sends a multiple of that. Requests are greedy, of random token ids, with end tokens ignored, so
their lengths are exact. The load generator shares the machine's cores with the server.
"""

import argparse
import asyncio
import json
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

from machine import CpuTimes, Memory, describe_machine
from peers import Engine, RunningServer

from wheelpit.bench.http_stream import Exchange, HttpClient
from wheelpit.bench.measure import percentile

SEATS = 16
VOCABULARY = range(300, 8000)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, as its client saw it. Seconds of the monotonic clock."""

    sent_s: float
    exchange: Exchange
    label: str

    @property
    def is_complete(self) -> bool:
        return self.exchange.status == 200 and self.exchange.finish_reason == "length"

    @property
    def is_refused(self) -> bool:
        return self.exchange.status == 429

    @property
    def ttft_s(self) -> float:
        return self.exchange.arrival_times_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        return self.exchange.ended_s - self.sent_s

    @property
    def gaps_s(self) -> list[float]:
        times = self.exchange.arrival_times_s
        return [later - earlier for earlier, later in pairwise(times)]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what is promised, and what was measured."""

    name: str
    promise: str
    measured: str
    holds: bool


class Load:
    """Sends requests to one server and keeps what came of them."""

    def __init__(self, server: RunningServer, model: str) -> None:
        self.server = server
        self.model = model
        self.client = HttpClient(server.url, clock=time.monotonic, api_key=None, timeout_s=300.0)
        self.outcomes: list[Outcome] = []
        self._random = random.Random(0)
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def body(self, num_prompt: int, num_output: int, **fields: object) -> bytes:
        prompt = [self._random.choice(VOCABULARY) for _ in range(num_prompt)]
        return json.dumps(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": num_output,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                **fields,
            }
        ).encode()

    async def send(
        self, num_prompt: int, num_output: int, label: str = "", **fields: object
    ) -> Outcome:
        body = self.body(num_prompt, num_output, **fields)
        sent_s = time.monotonic()
        exchange = await self.client.post("/v1/completions", body, is_stream=True)
        outcome = Outcome(sent_s, exchange, label)
        self.outcomes.append(outcome)
        return outcome

    def start(self, *arguments: object, **fields: object) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(self.send(*arguments, **fields))  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def poisson(self, rate_per_s: float, seconds: float, send: Callable[[], object]) -> None:
        """Call `send` at random moments, so many a second on average."""
        draw = random.Random(1)
        due_s = time.monotonic()
        end_s = due_s + seconds
        while (due_s := due_s + draw.expovariate(rate_per_s)) < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            send()

    async def closed_loop(
        self, streams: int, seconds: float, send: Callable[[], Awaitable[object]]
    ) -> None:
        """Keep so many requests in flight."""
        end_s = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < end_s:
                await send()

        await asyncio.gather(*(one() for _ in range(streams)))

    async def capacity(self, num_prompt: int, num_output: int, seconds: float) -> float:
        """Requests a second that it completes with every seat taken."""
        await self.closed_loop(SEATS, 2.0, lambda: self.send(num_prompt, num_output))
        self.outcomes.clear()
        started_s = time.monotonic()
        await self.closed_loop(SEATS, seconds, lambda: self.send(num_prompt, num_output))
        rate = len(self.outcomes) / (time.monotonic() - started_s)
        self.outcomes.clear()
        return rate

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        text = (await self.client.get("/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class Bench:
    """The settings of a run."""

    def __init__(self, model: str, seconds: float, folder: Path, flags: list[str]) -> None:
        """flags: more of them, for every server."""
        self.model = model
        self.flags = flags
        self.seconds = seconds
        self.folder = folder
        self.commands: list[str] = []
        self.others_cores = 0.0

    @asynccontextmanager
    async def serve(self, *flags: str) -> AsyncIterator[Load]:
        command = (
            *(sys.executable, "-m", "wheelpit", "serve", self.model, "--host", "127.0.0.1"),
            *("--port", "{port}", "--max-num-seqs", str(SEATS), "--no-enable-prefix-caching"),
            *self.flags,
            *flags,
        )
        engine = Engine(
            name="wheelpit", command=command, model=self.model, version_command=("true",)
        )
        server = RunningServer(engine, self.folder / f"server-{len(self.commands)}.log")
        self.commands.append(shlex.join(["wheelpit", *command[3:]]))
        try:
            server.wait_until_ready(120.0)
            before = CpuTimes.now(server.session_id)
            yield Load(server, self.model)
            others = CpuTimes.now(server.session_id).others_since(before)
            self.others_cores = max(self.others_cores, others)
        finally:
            server.stop()


def p99(values: Iterable[float]) -> float:
    return percentile(sorted(values), 99.0)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


# --- experiments


async def deadlines(bench: Bench) -> list[Row]:
    """Twice the sustainable load, 2 s for each request, answers of 16 to 112 tokens."""
    shares: dict[str, float] = {}
    rate = None
    for policy in ("fcfs", "deadline"):
        async with bench.serve(
            "--scheduling-policy", policy, "--max-num-queued-reqs", "none"
        ) as load:
            if rate is None:
                rate = await load.capacity(64, 64, bench.seconds / 3)
            draw = random.Random(2)

            def send(load: Load = load, draw: random.Random = draw) -> None:
                load.start(64, draw.randint(16, 112), timeout=2.0)

            await load.poisson(2 * rate, bench.seconds, send)
            await load.finish()
            shares[policy] = sum(o.is_complete for o in load.outcomes) / len(load.outcomes)
            late = [o.e2e_s - 2.0 for o in load.outcomes if not o.is_complete]
    ratio = shares["deadline"] / shares["fcfs"]
    return [
        Row(
            "deadlines",
            "at twice the sustainable load, in time under `deadline` >= 1.3x `fcfs`",
            f"{shares['deadline']:.0%} and {shares['fcfs']:.0%}: {ratio:.2f}x",
            ratio >= 1.3,
        ),
        Row(
            "deadlines",
            "whoever misses its deadline is told within a step of it",
            f"p99 {ms(p99(late))} after it, {len(late)} requests",
            p99(late) < 0.25,
        ),
    ]


async def priorities(bench: Bench) -> list[Row]:
    """Every seat and a long queue taken by priority 10; requests of priority 0 come in between."""
    async with bench.serve(
        "--scheduling-policy",
        "priority",
        "--priority-ageing-s",
        "1",
        "--max-num-queued-reqs",
        "none",
    ) as load:
        for _ in range(20):
            await load.send(64, 16, "idle")
        idle = [o.ttft_s for o in load.outcomes]
        load.outcomes.clear()

        async def keep_asking() -> None:
            while True:
                await load.send(64, 200, "background", priority=10)

        background = [asyncio.create_task(keep_asking()) for _ in range(SEATS * 4)]
        await asyncio.sleep(1.0)
        for _ in range(int(bench.seconds * 2)):
            await asyncio.sleep(0.4)
            await load.send(64, 16, "urgent", priority=0)
        patient = load.start(64, 32, "patient", priority=10)
        end_s = time.monotonic() + 120.0
        while not patient.done() and time.monotonic() < end_s:
            await load.send(64, 16, "flood", priority=0)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        done = patient.done() and patient.result().is_complete
        ttfts = [o.ttft_s for o in load.outcomes if o.label == "urgent"]
        gaps = [gap for o in load.outcomes if o.label == "urgent" for gap in o.gaps_s]
    # The one that it comes into: any, so a long one at times.
    step_s = p99(gaps)
    bound = 2 * p99(idle) + step_s
    return [
        Row(
            "priority",
            "a saturated server's priority 0: p99 TTFT <= 2x idle p99 + one step",
            f"p99 {ms(p99(ttfts))}, p50 {ms(statistics.median(ttfts))}; idle p99 {ms(p99(idle))}, "
            f"step p50 {ms(statistics.median(gaps))}, p99 {ms(step_s)}, bound {ms(bound)}",
            p99(ttfts) <= bound,
        ),
        Row(
            "priority",
            "a request of priority 10 finishes though priority 0 never stops coming",
            "finished" if done else "did not finish",
            bool(done),
        ),
    ]


async def fairness(bench: Bench) -> list[Row]:
    """Two tenants, both with work waiting; one sends ten times the requests, four times as long."""
    rows = []
    for weights in ((1, 1), (3, 1)):
        config = bench.folder / f"tenants-{weights[0]}-{weights[1]}.toml"
        config.write_text(
            f"[tenants.modest]\nweight = {weights[0]}\n[tenants.greedy]\nweight = {weights[1]}\n"
        )
        async with bench.serve(
            *("--scheduling-policy", "fair", "--tenant-config", str(config)),
            *("--max-num-queued-reqs", "none", "--max-num-queued-tokens", "none"),
        ) as load:

            async def keep_asking(scale: int, user: str, load: Load = load) -> None:
                while True:
                    await load.send(32 * scale, 16 * scale, user, user=user)

            tenants = [
                *(keep_asking(1, "modest") for _ in range(48)),
                *(keep_asking(4, "greedy") for _ in range(480)),
            ]
            tasks = [asyncio.create_task(tenant) for tenant in tenants]
            started_s = time.monotonic()
            await asyncio.sleep(bench.seconds + 12.0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            worst = 0.0
            start_s = started_s + 5.0
            while start_s + 10.0 <= started_s + bench.seconds + 10.0:
                tokens = {
                    user: served(load.outcomes, user, start_s, start_s + 10.0) / weight
                    for user, weight in zip(("modest", "greedy"), weights, strict=True)
                }
                mean = sum(tokens.values()) / 2
                worst = max(worst, abs(tokens["modest"] - tokens["greedy"]) / mean)
                start_s += 1.0
        rows.append(
            Row(
                "fairness",
                f"weights {weights[0]}:{weights[1]}: served tokens within 10 % over any 10 s",
                f"largest difference {worst:.1%}",
                worst <= 0.1,
            )
        )
    return rows


def served(outcomes: list[Outcome], label: str, start_s: float, end_s: float) -> float:
    """Tokens of one tenant in a window: outputs when they came, a prompt with its first one."""
    total = 0.0
    for outcome in outcomes:
        exchange = outcome.exchange
        if outcome.label != label or not exchange.arrival_times_s:
            continue
        num_prompt = 32 if label == "modest" else 128
        num_output = 16 if label == "modest" else 64
        events = sum(exchange.arrival_events)
        for index, (moment, count) in enumerate(
            zip(exchange.arrival_times_s, exchange.arrival_events, strict=True)
        ):
            if start_s <= moment < end_s:
                total += count * num_output / events + (num_prompt if index == 0 else 0)
    return total


async def long_prompt(bench: Bench) -> list[Row]:
    """Eight streams run while prompts of the whole context come in, one after the other."""
    async with bench.serve() as load:
        before, during = [], []
        for _ in range(5):
            streams = [load.start(32, 400, "stream") for _ in range(8)]
            await asyncio.sleep(1.5)
            long_s = time.monotonic()
            long = await load.send(2000, 4, "long")
            first_s = long.exchange.arrival_times_s[0]
            for outcome in await asyncio.gather(*streams):
                times = outcome.exchange.arrival_times_s
                for earlier, later in pairwise(times):
                    if long_s - 1.0 < later < long_s:
                        before.append(later - earlier)
                    elif long_s <= later <= first_s:
                        during.append(later - earlier)
    ratio = p99(during) / p99(before)
    return [
        Row(
            "long prompt",
            "p99 ITL of 8 streams while 2,000 prompt tokens come in <= 2x without",
            f"{ms(p99(during))} and {ms(p99(before))}: {ratio:.2f}x "
            f"(p50 {ms(statistics.median(during))} and {ms(statistics.median(before))})",
            ratio <= 2.0,
        )
    ]


async def overload(bench: Bench) -> list[Row]:
    """Four times the capacity for a minute, with a queue of 8."""
    async with bench.serve("--max-num-queued-reqs", "8") as load:
        rate = await load.capacity(64, 64, bench.seconds / 3)
        # At capacity: as many clients as there is room for, so that the queue is full as well.
        await load.closed_loop(SEATS + 8, bench.seconds / 2, lambda: load.send(64, 64))
        at_capacity = [o.e2e_s for o in load.outcomes[SEATS + 8 :] if o.is_complete]
        load.outcomes.clear()
        seconds, memory = max(bench.seconds, 60.0), []
        for share in (1 / 3, 2 / 3):
            await load.poisson(4 * rate, seconds * share, lambda: load.start(64, 64))
            memory.append(Memory.of_session(load.server.session_id).pss_mib)
        await load.finish()
        accepted = [o for o in load.outcomes if o.is_complete]
        refused = [o for o in load.outcomes if o.is_refused]
        errors = len(load.outcomes) - len(accepted) - len(refused)
        ratios = waits(accepted, refused)
        retried = await retry_with_openai(load)
    share = sum(0.5 <= ratio <= 2.0 for ratio in ratios) / len(ratios)
    latency = p99(o.e2e_s for o in accepted) / p99(at_capacity)
    refusals = [o.e2e_s for o in refused]
    return [
        Row(
            "overload",
            "at 4x capacity, accepted requests' p99 <= 1.5x that at capacity",
            f"{ms(p99(o.e2e_s for o in accepted))} and {ms(p99(at_capacity))}: {latency:.2f}x; "
            f"{len(accepted)} served, {len(refused)} refused, {errors} errors",
            latency <= 1.5 and errors == 0,
        ),
        Row("overload", "refusals answer in < 50 ms p99", ms(p99(refusals)), p99(refusals) < 0.05),
        Row(
            "overload",
            "`Retry-After` is within 2x of the wait of those who got in just then",
            f"{share:.0%} of {len(ratios)}, median ratio {statistics.median(ratios):.2f}",
            share >= 0.9,
        ),
        Row(
            "overload",
            "memory stays flat (PSS of all processes after 20 s of it and after 60 s)",
            f"{memory[0]:.0f} and {memory[1]:.0f} MiB",
            memory[1] - memory[0] < 0.02 * memory[0],
        ),
        Row("overload", "openai-python's own retry succeeds", retried[1], retried[0]),
    ]


def waits(accepted: list[Outcome], refused: list[Outcome]) -> list[float]:
    """`Retry-After` over the queueing time of the next accepted request, to a whole second up."""
    ordered = sorted(accepted, key=lambda outcome: outcome.sent_s)
    ratios, index = [], 0
    for outcome in sorted(refused, key=lambda outcome: outcome.sent_s):
        while index < len(ordered) and ordered[index].sent_s < outcome.sent_s:
            index += 1
        if index < len(ordered) and outcome.exchange.retry_after_s is not None:
            # Seconds on the wire are whole ones, rounded up.
            wait_s = max(1.0, float(-(-ordered[index].ttft_s // 1)))
            ratios.append(outcome.exchange.retry_after_s / wait_s)
    return ratios


async def retry_with_openai(load: Load) -> tuple[bool, str]:
    """Fill the server, then send more with openai-python, which retries by itself."""
    import openai

    client = openai.AsyncOpenAI(base_url=f"{load.server.url}/v1", api_key="none", max_retries=5)
    background = [load.start(64, 64, "fill") for _ in range(SEATS + 8)]
    await asyncio.sleep(0.3)
    answers = await asyncio.gather(
        *(
            client.completions.create(model=load.model, prompt=[400 + i], max_tokens=4)
            for i in range(8)
        ),
        return_exceptions=True,
    )
    await asyncio.gather(*background)
    good = sum(not isinstance(answer, BaseException) for answer in answers)
    await client.close()
    return good == len(answers), f"{good} of {len(answers)} that came to a full queue"


async def disconnects(bench: Bench) -> list[Row]:
    """Half of the clients leave in the middle of their stream, for two minutes."""
    async with bench.serve("--max-num-queued-reqs", "none") as load:
        draw = random.Random(3)
        num_left = 0

        async def leave() -> None:
            nonlocal num_left
            host = load.server.url.removeprefix("http://")
            reader, writer = await asyncio.open_connection(*host.split(":"))
            body = load.body(64, 128)
            head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            for _ in range(draw.randint(1, 60)):
                await reader.readline()
            writer.close()
            num_left += 1

        seconds = max(bench.seconds, 120.0)
        await asyncio.gather(
            load.closed_loop(8, seconds, leave),
            load.closed_loop(8, seconds, lambda: load.send(64, 64)),
        )
        stayed = [o.is_complete for o in load.outcomes]
        await asyncio.sleep(1.0)
        left_over = {
            name: await load.metric(f"wheelpit:{name}")
            for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        }
    return [
        Row(
            "disconnects",
            "clients that stay are unharmed while as many leave",
            f"{sum(stayed)} of {len(stayed)} complete, {num_left} left",
            all(stayed),
        ),
        Row(
            "disconnects",
            "one second later nothing runs, waits or holds a block",
            ", ".join(f"{name} {value:g}" for name, value in left_over.items()),
            not any(left_over.values()),
        ),
    ]


async def probes(bench: Bench) -> list[Row]:
    """Another process asks for health while every seat is taken, and while large prompts come."""
    word, ids = "word " * 2_000_000, [1234] * 1_700_000
    large = [
        json.dumps({"model": bench.model, "prompt": prompt}).encode() for prompt in (word, ids)
    ]
    async with bench.serve("--max-num-queued-reqs", "none") as load:

        async def probe() -> list[float]:
            script = Path(__file__).with_name("probe.py")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(script), load.server.url, str(bench.seconds)),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
            took_s: list[float] = json.loads(output)
            return took_s

        async def send_large() -> None:
            for body in cycle(large):
                await load.client.post("/v1/completions", body)
                await asyncio.sleep(1.0)

        full, _ = await asyncio.gather(
            probe(), load.closed_loop(4 * SEATS, bench.seconds, lambda: load.send(64, 64))
        )
        sending = asyncio.create_task(send_large())
        during = await probe()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return [
        Row(
            "probes",
            f"health routes answer in < 10 ms p99 {when}",
            f"p99 {1000 * p99(took_s):.1f} ms, of {len(took_s)}",
            p99(took_s) < 0.01,
        )
        for when, took_s in (
            (f"with all seats taken and {3 * SEATS} requests waiting", full),
            ("while a prompt of 10 MB comes in every second", during),
        )
    ]


EXPERIMENTS = {
    "deadlines": deadlines,
    "priorities": priorities,
    "fairness": fairness,
    "long_prompt": long_prompt,
    "overload": overload,
    "disconnects": disconnects,
    "probes": probes,
}


def main() -> None:
    """Run the experiments, print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seconds", type=float, default=30.0, help="of load in each experiment")
    parser.add_argument("--flags", default="", help="more flags for `wheelpit serve`")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="traffic_"))
    bench = Bench(arguments.model, arguments.seconds, folder, shlex.split(arguments.flags))
    print(f"servers log to {bench.folder}", file=sys.stderr)
    rows: list[Row] = []
    for name in arguments.only:
        found = asyncio.run(EXPERIMENTS[name](bench))
        for row in found:
            print(f"{row.name}: {row.promise}: {row.measured}", file=sys.stderr)
        rows += found
    print("| | promise | measured | holds |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.name} | {row.promise} | {row.measured} | {'yes' if row.holds else 'no'} |")
    print(
        json.dumps(
            {
                "command": shlex.join(["python", *sys.argv]),
                "machine": describe_machine(),
                "others_cores": round(bench.others_cores, 2),
                "servers": bench.commands,
                "rows": [[row.name, row.promise, row.measured, row.holds] for row in rows],
            }
        )
    )


if __name__ == "__main__":
    main()
