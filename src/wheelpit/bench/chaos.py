"""Kill and stop a running server's engine at random, and see what becomes of its answers.

Half of the streams are greedy, half are sampled with a seed. They run once undisturbed; then again
and again while the engine process is killed or stopped for good, which makes it hang. Each answer
is compared token by token with its undisturbed one. Only where an answer does not depend on how it
was batched can they be the same: float32 on a CPU.

The engine process must be on this machine: the server tells its pid to who has the admin key.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from urllib.parse import urlsplit

from wheelpit.bench.http_stream import HttpClient
from wheelpit.bench.prompts import WORDS
from wheelpit.bench.target import TargetError, find_model
from wheelpit.errors import ConfigError

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """What to send, and how often to strike: on average every `kill_every_s`."""

    url: str
    admin_key: str
    num_streams: int = 16
    num_tokens: int = 128
    seconds: float = 60.0
    kill_every_s: float = 5.0
    ways: tuple[str, ...] = ("kill", "stop")
    seed: int = 0

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme != "http":
            raise ConfigError(f"url is {self.url!r}: give http://HOST:PORT, on this machine")
        if not self.ways or set(self.ways) - set(SIGNALS):
            raise ConfigError(f"ways are {self.ways}: give some of {', '.join(SIGNALS)}")
        for name in ("num_streams", "num_tokens", "kill_every_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give more than 0")


@dataclass(frozen=True, slots=True)
class Answer:
    """A streamed answer: its tokens, how it ended, and when its chunks came."""

    token_ids: tuple[int, ...]
    finish_reason: str | None
    times_s: tuple[float, ...]
    error: str | None = None

    @property
    def longest_pause_s(self) -> float:
        return max((b - a for a, b in itertools.pairwise(self.times_s)), default=0.0)


@dataclass(frozen=True, slots=True)
class Damage:
    """Tokens that an answer lacks, has twice, or has in place of others."""

    lost: int = 0
    duplicated: int = 0
    altered: int = 0

    def __add__(self, other: "Damage") -> "Damage":
        return Damage(
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.altered + other.altered,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosReport:
    """What came of a run. `num_incomplete`: answers that did not come to their end."""

    num_answers: int
    num_incomplete: int
    num_kills: int
    num_stops: int
    num_restarts: int
    lost_tokens: int
    duplicated_tokens: int
    altered_tokens: int
    longest_pause_s: float
    longest_pause_undisturbed_s: float
    is_comparable: bool
    """The server computes in float32 on a CPU: all differences are faults."""
    first_error: str | None

    @property
    def is_clean(self) -> bool:
        damage = self.lost_tokens + self.duplicated_tokens + self.altered_tokens
        return damage == 0 and self.num_incomplete == 0


async def run_chaos(plan: ChaosPlan, say: Callable[[str], None] = lambda line: None) -> ChaosReport:
    """Run the streams undisturbed, then disturbed. TargetError if there is nothing to disturb."""
    client = HttpClient(plan.url, clock=time.perf_counter, api_key=plan.admin_key, timeout_s=30.0)
    try:
        model = await find_model(client)
        before = await engine_of(client)
        requests = bodies(plan, model)
        expected = await _send_all(plan, requests)
        for answer in expected:
            if answer.finish_reason != "length":
                raise TargetError(f"an undisturbed answer ended with {answer.error or answer}")
        say(f"{len(expected)} answers undisturbed; disturbing for {plan.seconds:g} s")
        disturbing = asyncio.create_task(_disturb(plan, client, say))
        answers: list[Answer] = []
        while not disturbing.done():
            answers += await _send_all(plan, requests)
        struck = await disturbing
        after = await engine_of(client)
    finally:
        client.close()
    damage, num_incomplete = Damage(), 0
    for answer, wanted in zip(answers, itertools.cycle(expected), strict=False):
        damage += compare(wanted.token_ids, answer.token_ids)
        num_incomplete += answer.finish_reason != wanted.finish_reason
    return ChaosReport(
        num_answers=len(answers),
        num_incomplete=num_incomplete,
        num_kills=struck.count("kill"),
        num_stops=struck.count("stop"),
        num_restarts=int(str(after["num_restarts"])) - int(str(before["num_restarts"])),
        lost_tokens=damage.lost,
        duplicated_tokens=damage.duplicated,
        altered_tokens=damage.altered,
        longest_pause_s=max(answer.longest_pause_s for answer in answers),
        longest_pause_undisturbed_s=max(answer.longest_pause_s for answer in expected),
        is_comparable=(after["dtype"], after["device"]) == ("float32", "cpu"),
        first_error=next((answer.error for answer in answers if answer.error), None),
    )


def compare(wanted: Sequence[int], got: Sequence[int]) -> Damage:
    """Count what is wrong with an answer, token by token."""
    if tuple(wanted) == tuple(got):
        return Damage()
    lost = duplicated = altered = 0
    matcher = SequenceMatcher(None, wanted, got, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "delete":
            lost += b - a
        elif kind == "insert":
            again = list(got[c:d])
            is_repeated = again in (list(got[c - len(again) : c]), list(got[d : d + len(again)]))
            duplicated += is_repeated * len(again)
            altered += (not is_repeated) * len(again)
        elif kind == "replace":
            altered += max(b - a, d - c)
    return Damage(lost, duplicated, altered)


def bodies(plan: ChaosPlan, model: str) -> list[dict[str, object]]:
    """The requests: greedy and seeded ones in turns, of different lengths."""
    draw = random.Random(plan.seed)
    return [
        {
            "model": model,
            "prompt": " ".join(draw.choices(WORDS, k=draw.randint(2, 16))),
            "max_tokens": plan.num_tokens,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
            **({"temperature": 0} if index % 2 else {"temperature": 0.9}),
            "seed": index,
        }
        for index in range(plan.num_streams)
    ]


async def stream(url: str, key: str, body: dict[str, object]) -> Answer:
    """Send one completion and read it to its end, over a connection of its own."""
    token_ids: list[int] = []
    times_s: list[float] = []
    finish_reason: str | None = None
    writer: asyncio.StreamWriter | None = None
    try:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        payload = json.dumps(body).encode()
        head = (
            f"POST {parts.path.rstrip('/')}/v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + payload)
        status = await reader.readline()
        if b" 200 " not in status:
            answer = (await reader.read()).rpartition(b"\r\n\r\n")[2]
            return Answer((), None, (), f"{status!r} {answer[:500]!r}")
        while (line := await reader.readline()) != b"data: [DONE]\n":
            if not line:
                return Answer(tuple(token_ids), None, tuple(times_s), "the connection ended")
            if not line.startswith(b"data: "):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                return Answer(tuple(token_ids), None, tuple(times_s), str(chunk["error"]))
            for choice in chunk["choices"]:
                token_ids += choice.get("token_ids") or ()
                finish_reason = choice["finish_reason"] or finish_reason
            times_s.append(time.monotonic())
    except OSError as error:
        return Answer(tuple(token_ids), None, tuple(times_s), str(error))
    finally:
        if writer is not None:
            writer.close()
    return Answer(tuple(token_ids), finish_reason, tuple(times_s))


async def engine_of(client: HttpClient) -> dict[str, object]:
    """What the server tells of its engine. TargetError."""
    try:
        exchange = await client.get("/admin/engine")
    except (OSError, TimeoutError) as error:
        raise TargetError(f"server does not answer /admin/engine: {error}") from error
    if exchange.status != 200:
        raise TargetError(
            f"server answers {exchange.status} to /admin/engine: start it with --admin-key "
            "KEY, and give the same key here"
        )
    answer = json.loads(exchange.body)
    assert isinstance(answer, dict), answer
    return answer


async def _send_all(plan: ChaosPlan, requests: list[dict[str, object]]) -> list[Answer]:
    return await asyncio.gather(*(stream(plan.url, plan.admin_key, body) for body in requests))


async def _disturb(plan: ChaosPlan, client: HttpClient, say: Callable[[str], None]) -> list[str]:
    """Strike at random moments until time is over; returns in which ways."""
    draw = random.Random(plan.seed)
    ends_s = time.monotonic() + plan.seconds
    struck: list[str] = []
    while time.monotonic() < ends_s:
        await asyncio.sleep(draw.uniform(0.5, 1.5) * plan.kill_every_s)
        engine = await engine_of(client)
        pid = engine["pid"]
        if engine["state"] != "serving" or not isinstance(pid, int):
            continue
        way = draw.choice(plan.ways)
        try:
            os.kill(pid, SIGNALS[way])
        except ProcessLookupError as error:
            if (await engine_of(client))["pid"] == pid:
                raise TargetError(f"process {pid} is not on this machine") from error
            continue  # it died just now by itself
        except PermissionError as error:
            raise TargetError(f"process {pid} is somebody else's") from error
        struck.append(way)
        say(f"{way} {len(struck)}: process {pid}")
    return struck
