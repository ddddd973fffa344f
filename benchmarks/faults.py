"""Kill the engine again and again under load, and compare every answer with an undisturbed run.

    python benchmarks/faults.py [--kills 20] [--streams 64] [--signal KILL STOP]

A server runs the model in float32, where an answer does not depend on how it was batched. Half of
the streams are greedy, half are sampled with a seed. They run once undisturbed; then once more
while the engine process is killed (KILL) or stopped for good (STOP, which makes it hang) at random
moments. Every answer must come to the same end with the same bytes. The pause of a signal is the
longest time between two chunks of any stream in which it was sent. Of that the next engine's start
is what the server's log says; before it comes what it takes to notice, after it the replay.

The JSON line has the cores that other processes took meanwhile: with only two, a pause grows with
that more than in proportion. `--nice -12` as root gives server and client precedence.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from machine import CpuTimes, describe_machine, session_processes, set_niceness
from peers import Engine, RunningServer

STALL_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A streamed answer: its text, the end's reason, and the times of its chunks."""

    text: str
    finish_reason: str | None
    times_s: tuple[float, ...]

    @property
    def longest_pause_s(self) -> float:
        times = self.times_s
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)

    def pause_at_s(self, moment_s: float) -> float:
        """The time between the chunks before and after a moment; 0 if it has not both."""
        pairs = itertools.pairwise(self.times_s)
        return next((b - a for a, b in pairs if a <= moment_s < b), 0.0)


class Progress:
    """Counts the chunks of all streams, to tell whether an engine serves them all."""

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._num_chunks = 0
        self._first: dict[int, int] = {}

    def on_chunk(self) -> None:
        self._num_chunks += 1

    def is_streaming(self, pid: int) -> bool:
        """Have chunks come for all, more or less, since this engine was first asked about?"""
        first = self._first.setdefault(pid, self._num_chunks)
        return self._num_chunks >= first + 2 * self._streams


async def stream(
    url: str, body: dict[str, object], on_chunk: Callable[[], None] = lambda: None
) -> Answer:
    """Send one completion and read it to its end, over a connection of its own."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    payload = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    pieces: list[str] = []
    times_s: list[float] = []
    finish_reason = None
    try:
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                break
            chunk = json.loads(line[6:])
            if "choices" not in chunk:
                return Answer("".join(pieces), f"error: {chunk}", tuple(times_s))
            for choice in chunk["choices"]:
                pieces.append(choice["text"])
                finish_reason = choice["finish_reason"] or finish_reason
            times_s.append(time.monotonic())
            on_chunk()
    finally:
        writer.close()
    return Answer("".join(pieces), finish_reason, tuple(times_s))


def bodies(model: str, streams: int, num_tokens: int) -> list[dict[str, object]]:
    draw = random.Random(0)
    return [
        {
            "model": model,
            "prompt": [draw.randrange(300, 8000) for _ in range(draw.randint(8, 128))],
            "max_tokens": num_tokens,
            "ignore_eos": True,
            "stream": True,
            **({"temperature": 0} if index % 2 else {"temperature": 0.9, "seed": index}),
        }
        for index in range(streams)
    ]


def engine_pid(server: RunningServer) -> int | None:
    """The engine process: the one of this name in the server's session."""
    for pid in session_processes(server.session_id):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now
        if name == "wheelpit-engine":
            return pid
    return None


async def disturb(
    server: RunningServer,
    number: signal.Signals,
    count: int,
    is_streaming: Callable[[int], bool],
) -> list[float]:
    """Signal each of so many engines up to 2 s after it has got going; returns when."""
    draw = random.Random(number)
    seen: set[int] = set()
    moments_s: list[float] = []
    for done in range(1, count + 1):
        pid = engine_pid(server)
        while pid is None or pid in seen or not is_streaming(pid):
            await asyncio.sleep(0.05)
            pid = engine_pid(server)
        await asyncio.sleep(draw.uniform(0.0, 2.0))
        seen.add(pid)
        moments_s.append(time.monotonic())
        os.kill(pid, number)
        print(f"{number.name} {done} of {count}", file=sys.stderr)
    return moments_s


async def compare(
    server: RunningServer, requests: list[dict[str, object]], number: signal.Signals, kills: int
) -> dict[str, object]:
    """Run the streams undisturbed and disturbed, and count what differs."""
    expected = await asyncio.gather(*(stream(server.url, body) for body in requests))
    assert all(answer.finish_reason == "length" for answer in expected), expected[0]
    started_s = time.monotonic()
    num_starts = len(starts_s(server))
    before = CpuTimes.now(server.session_id)
    progress = Progress(len(requests))
    disturbing = asyncio.create_task(disturb(server, number, kills, progress.is_streaming))
    answers: list[Answer] = []
    rounds = 0
    # One round may be over before the last kill: begin another one.
    while not disturbing.done():
        answers += await asyncio.gather(
            *(stream(server.url, body, progress.on_chunk) for body in requests)
        )
        rounds += 1
    moments_s = await disturbing
    pauses_s = [max(each.pause_at_s(moment_s) for each in answers) for moment_s in moments_s]
    altered = lost = 0
    for index, answer in enumerate(answers):
        wanted = expected[index % len(requests)]
        is_complete = answer.finish_reason == wanted.finish_reason
        lost += not is_complete
        altered += is_complete and answer.text != wanted.text
    row = {
        "signal": number.name,
        "signals": len(moments_s),
        "answers": len(answers),
        "rounds": rounds,
        "incomplete": lost,
        "altered": altered,
        "median_pause_s": round(statistics.median(pauses_s), 2),
        "longest_pause_s": round(max(answer.longest_pause_s for answer in answers), 2),
        "median_start_s": statistics.median(starts_s(server)[num_starts:]),
        "longest_pause_undisturbed_s": round(max(a.longest_pause_s for a in expected), 2),
        "seconds": round(time.monotonic() - started_s, 1),
        "others_cores": round(CpuTimes.now(server.session_id).others_since(before), 2),
    }
    print(row, file=sys.stderr)
    return row


def starts_s(server: RunningServer) -> list[float]:
    """How long each engine but the first took to start, by the server's log."""
    text = server.log.read_text()
    return [float(each) for each in re.findall(r"the next engine is ready after ([\d.]+) s", text)]


def main() -> None:
    """Start a server, disturb it, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", nargs="+", choices=("KILL", "STOP"), default=["KILL", "STOP"])
    parser.add_argument("--flags", default="", help="more flags for `wheelpit serve`")
    parser.add_argument("--nice", type=int, default=0, help="of the server and of this script")
    arguments = parser.parse_args()
    command = (
        *(sys.executable, "-m", "wheelpit", "serve", arguments.model, "--dtype", "float32"),
        *("--host", "127.0.0.1", "--port", "{port}", "--max-num-queued-reqs", "none"),
        *("--max-restarts", "1000", "--engine-stall-timeout", str(STALL_TIMEOUT_S)),
        *shlex.split(arguments.flags),
    )
    log = Path(tempfile.mkdtemp(prefix="faults_")) / "server.log"
    print(f"server logs to {log}", file=sys.stderr)
    engine = Engine(
        name="wheelpit", command=command, model=arguments.model, version_command=("true",)
    )
    server = RunningServer(engine, log)
    try:
        ready_s = server.wait_until_ready(120.0)
        for pid in (server.session_id, os.getpid()):
            set_niceness(pid, arguments.nice)
        requests = bodies(arguments.model, arguments.streams, arguments.tokens)
        rows = [
            asyncio.run(compare(server, requests, signal.Signals[f"SIG{name}"], arguments.kills))
            for name in arguments.signal
        ]
    finally:
        server.stop()
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row[name]) for name in names) + " |")
    print(
        json.dumps(
            {
                "command": shlex.join(["python", *sys.argv]),
                "machine": describe_machine(),
                "ready_s": round(ready_s, 2),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
