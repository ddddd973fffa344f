"""Everything that can happen to a server, for half an hour; then it must be as it was.

    python benchmarks/soak.py --minutes 30 [--rate 6] [--strike-every 20]

A server with the built-in model in float32 answers clients of all kinds (`soak_traffic.py`):
streams and whole answers, chat and completions, several choices, stop strings, logprobs, deadlines,
priorities, resumed streams, cancelled ones, clients that leave at every moment, refused ones and
nonsense. All the while its engine process is killed, stopped or replaced every 20 s.

First comes a part of the time to warm up, in which everything happens at least once. Then, with
nothing in flight, all that the server's process holds is counted (`leaks.py`), and once more at the
end: tasks, threads, files, child processes, the size of every container that can be reached from
the server, every object of our own or of asyncio. Each count must be the same. Memory may grow by
FRONT_END_SLACK_BYTES. An engine that is killed has no time to grow: so the last one lives for the
last fifth of the time undisturbed, and may grow in the last three quarters of that by
ENGINE_SLACK_BYTES.

Each request must have had exactly one end, for its client and in the server's log, and each token
must be that of an undisturbed answer. Ends with status 1 if anything of this is not so.
"""

import argparse
import asyncio
import json
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leaks import MIB, Difference, differences
from machine import describe_machine
from soak_cases import make_cases
from soak_client import BrokenPromiseError
from soak_striker import ADMIN_KEY, Striker, get
from soak_traffic import Record, Traffic

FRONT_END_SLACK_BYTES = 8 * MIB
"""The heap of a process that keeps nothing was seen to differ by 5 MiB between two counts, by what
was in flight at once before. Half an hour has 10,000 requests: a leak of 800 bytes a request shows
here, and one of a single object in the counts."""

ENGINE_SLACK_BYTES = 256 * MIB
"""Likewise of an engine, whose steps have another number of rows each. oneDNN compiles a product of
matrices for each number that it has not seen, and keeps 1,024 of them: 2 MiB a number, five
products each."""

OUR_PACKAGES = frozenset(
    ("wheelpit", "asyncio", "_asyncio", "uvloop", "uvicorn", "starlette", "fastapi", "anyio")
)
OBJECT_SLACK = 50
"""Of objects that are neither ours nor our server's: Python makes some of its own at any time."""

MAX_RESTARTS = 50
BOUNDED = {
    # The ends of engines within the restart window; older ones are dropped at the next end.
    "._supervisor._ends": MAX_RESTARTS + 1,
    # By route, method and class of status, of which there are few.
    "._counts": 40,
    "._counts[key]": 120,
}
"""What may have grown, and how far: last parts of the names of containers that have a bound."""

Held = dict[str, dict[str, int]]
"""What the server's process holds: counts by kind, then by name."""

QUIET_S = 60.0
"""So long it may take until nothing is in flight. Resumable streams are kept for some of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, and of what. worker: of another engine process than ours, for tests."""

    seconds: float
    warm_up_s: float
    rate_per_s: float
    strike_every_s: float
    seed: int = 0
    model: str = "builtin"
    worker: Sequence[str] | None = None
    stall_timeout_s: float = 2.0
    resume_window_s: float = 3.0
    ways: tuple[str, ...] = (*("kill",) * 4, *("stop",) * 4, "restart")
    """How engines are struck: each of these is as likely."""
    rounds: int = 3
    """How many clients of each kind come while it warms up, at least."""

    @property
    def settings(self) -> dict[str, object]:
        """What the server is told."""
        return {
            "worker": self.worker,
            "engine": {
                "model": self.model,
                "served_model_name": "soaked",
                "dtype": "float32",
                # So few that requests wait and are refused, and run out of cache.
                "max_num_seqs": 8,
                "max_num_queued_reqs": 24,
                # So small that all of it was written to before the first count.
                "num_gpu_blocks_override": 256,
                "scheduling_policy": "priority",
                "engine_stall_timeout": self.stall_timeout_s,
                # As many as are struck, and those that are taken for hung on a busy machine.
                "max_restarts": MAX_RESTARTS,
                "restart_window": 60.0,
            },
            "options": {
                "admin_key": ADMIN_KEY,
                "resume_window_s": self.resume_window_s,
                "max_body_bytes": 1_000_000,
            },
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a soak."""

    record: Record
    strikes: Counter[str]
    num_restarts: int
    differences: list[Difference]
    faults: list[str]
    """What the server did wrong by its own account."""
    memory: dict[str, tuple[int, int]]
    """Of the front end and of the last engine, at the start and at the end."""
    front_end_mib: list[float]
    """Once a minute, and at each count."""
    seconds: float

    @property
    def is_clean(self) -> bool:
        return not (self.differences or self.record.broken or self.faults)


class SoakedServer:
    """The server's process, and questions to it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, url: str) -> None:
        self._process = process
        self._log = log
        self.url = url

    @classmethod
    async def start(cls, plan: Plan, log: Path) -> "SoakedServer":
        script = Path(__file__).with_name("soak_server.py")
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, script, json.dumps(plan.settings)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                limit=64 * MIB,
            )
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise BrokenPromiseError(f"the server did not start: see {log}")
        return cls(process, log, json.loads(line)["url"])

    async def ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            raise BrokenPromiseError(f"the server has ended: see {self._log}")
        return json.loads(line)

    async def wait_until_idle(self) -> None:
        """Until nothing is in flight, or for long enough: then the counts tell what is left."""
        ends_s = time.monotonic() + QUIET_S
        while any((await self.ask("idle")).values()):
            if time.monotonic() > ends_s:
                return
            await asyncio.sleep(0.1)

    async def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        if self._process.returncode is None:
            self._process.terminate()
        return await self._process.wait()


def soak(plan: Plan, log: Path) -> Report:
    """Do it all. log: of the server. BrokenPromiseError if that cannot go on."""
    outcome = asyncio.run(serve_and_strike(plan, log))
    return replace(outcome, faults=[*outcome.faults, *log_faults(log.read_text(), outcome.record)])


async def serve_and_strike(plan: Plan, log: Path) -> Report:
    server = await SoakedServer.start(plan, log)
    started_s = time.monotonic()
    memory: list[dict[str, int]] = []
    try:
        models = await get(server.url, "/v1/models")
        cases = make_cases("soaked", models["data"][0]["max_model_len"], plan.seed)
        traffic = Traffic(server.url, cases, plan.seed)
        striker = Striker(server.url, plan.ways, plan.strike_every_s, plan.seed)
        await traffic.learn()
        say("warming up")
        striking = asyncio.create_task(striker.strike_each())
        await traffic.run_each(plan.rounds)
        left_s = plan.warm_up_s - (time.monotonic() - started_s)
        await keep_busy(traffic, plan, left_s, striking)
        await count(server, traffic, [])  # makes what the next one finds
        before = await count(server, traffic, memory)
        say("soaking")
        left_s = plan.seconds - plan.warm_up_s
        watching = asyncio.create_task(watch(server, traffic, striker, memory))
        striking = asyncio.create_task(striker.strike_for(0.8 * left_s))
        await keep_busy(traffic, plan, 0.85 * left_s, striking)
        settled = await count(server, traffic, memory)
        await traffic.run(0.15 * left_s, plan.rate_per_s)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        after = await count(server, traffic, memory)
        engine = await get(server.url, "/admin/engine")
    finally:
        status = await server.stop()
    return Report(
        record=traffic.record,
        strikes=striker.strikes,
        num_restarts=engine["num_restarts"],
        differences=compare(before, settled, after),
        faults=[] if status == 0 else [f"the server ended with status {status}"],
        memory={
            "front_end": (before["memory"]["front_end"], after["memory"]["front_end"]),
            "engine": (settled["memory"]["engine"], after["memory"]["engine"]),
        },
        front_end_mib=[round(each["front_end"] / MIB, 1) for each in memory],
        seconds=time.monotonic() - started_s,
    )


async def keep_busy(
    traffic: Traffic, plan: Plan, seconds: float, striking: asyncio.Task[None]
) -> None:
    """Send traffic for so long, and for as long as somebody strikes: without work, nobody would
    notice that an engine was stopped.
    """
    await traffic.run(seconds, plan.rate_per_s)
    while not striking.done():
        await traffic.run(0.5, plan.rate_per_s)
    await striking


async def count(server: SoakedServer, traffic: Traffic, memory: list[dict[str, int]]) -> Held:
    """What the server holds when all clients have gone."""
    await traffic.finish()
    await server.wait_until_idle()
    held: Held = await server.ask("held")
    memory.append(held["memory"])
    return held


async def watch(
    server: SoakedServer, traffic: Traffic, striker: "Striker", memory: list[dict[str, int]]
) -> None:
    """Once a minute, say how it goes."""
    while True:
        await asyncio.sleep(60.0)
        memory.append(await server.ask("memory"))
        say(
            f"{sum(traffic.record.ends.values())} clients, {striker.strikes.total()} strikes, "
            f"{len(traffic.record.broken)} broken promises, front end "
            f"{memory[-1]['front_end'] / MIB:.1f} MiB"
        )


def compare(before: Held, settled: Held, after: Held) -> list[Difference]:
    """What there is more or less of than there should be. settled: with the last engine, which was
    not there at first.
    """
    others = {
        name: OBJECT_SLACK
        for name in before["objects"].keys() | after["objects"].keys()
        if name.partition(".")[0] not in OUR_PACKAGES
    }
    bounded = {
        name: slack
        for name in before["sizes"].keys() | after["sizes"].keys()
        for end, slack in BOUNDED.items()
        if name.endswith(end)
    }
    slack = {"front_end": FRONT_END_SLACK_BYTES, "engine": ENGINE_SLACK_BYTES}
    memory = {**before["memory"], "engine": settled["memory"]["engine"]}
    return [
        *differences(before["counts"], after["counts"], {}),
        *differences(memory, after["memory"], slack),
        *differences(before["sizes"], after["sizes"], bounded),
        *differences(before["objects"], after["objects"], others),
    ]


def log_faults(text: str, record: Record) -> list[str]:
    """Requests whose end the server has not reported exactly once."""
    times = Counter(ENDED.findall(text))
    faults = [f"{'-'.join(i)} was reported {num} times" for i, num in times.items() if num > 1]
    known = {chosen for chosen, _ in times}
    faults += [f"{name} was not reported" for name in sorted(record.answered_ids - known)]
    if unforeseen := re.findall(r"^ERROR .*Traceback|^\w*Error: .*", text, re.MULTILINE):
        faults += [f"the server has met with {line}" for line in unforeseen[:10]]
    return faults


ENDED = re.compile(
    r"^INFO \S+ request (?:chat)?cmpl-([a-z]+-\d+)-?(\d*): (?:stop|length|abort|error|refused)\b",
    re.MULTILINE,
)
"""A request's end in the log: the id that its client chose, and which of its prompts it was."""


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def show(report: Report) -> None:
    """Print a table of the clients and one of what has changed."""
    kinds = sorted({kind for kind, _ in report.record.ends})
    names = sorted({end for _, end in report.record.ends})
    print("| clients | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
    for kind in kinds:
        cells = [str(report.record.ends[kind, name] or "") for name in names]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("\n| what | at the start | at the end |\n| --- | ---: | ---: |")
    for name, (before, after) in report.memory.items():
        print(f"| memory of the {name}, MiB | {before / MIB:.1f} | {after / MIB:.1f} |")
    for each in report.differences:
        print(f"| {each.name} | {each.before} | {each.after} |")
    for line in (*report.record.broken, *report.faults):
        print(f"broken: {line}")


def main() -> int:
    """Soak, print tables and one line of JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of traffic, warming up too")
    parser.add_argument("--rate", type=float, default=6.0, help="clients a second")
    parser.add_argument("--strike-every", type=float, default=20.0, help="seconds, on average")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seconds = 60.0 * arguments.minutes
    plan = Plan(
        seconds=seconds,
        warm_up_s=min(120.0, seconds / 3),
        rate_per_s=arguments.rate,
        strike_every_s=arguments.strike_every,
        seed=arguments.seed,
    )
    log = Path(tempfile.mkdtemp(prefix="soak_")) / "server.log"
    say(f"the server logs to {log}")
    report = soak(plan, log)
    show(report)
    print(
        json.dumps(
            {
                "command": shlex.join(["python", *sys.argv]),
                "machine": describe_machine(),
                "seconds": round(report.seconds, 1),
                "clients": sum(report.record.ends.values()),
                "strikes": report.strikes,
                "restarts": report.num_restarts,
                "broken": len(report.record.broken) + len(report.faults),
                "leaks": [each.name for each in report.differences],
                "front_end_mib": report.front_end_mib,
                "engine_mib": [round(each / MIB, 1) for each in report.memory["engine"]],
                "clean": report.is_clean,
            }
        )
    )
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
