"""What to send and when: lengths, arrival times and the JSON body of every request.

Everything drawn here is a pure function of the seed, so two servers get the same workload and a run
can be repeated. Prompts themselves are written by prompts.py.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wheelpit.errors import ConfigError

Prompt = str | list[int]


class Endpoint(StrEnum):
    """Which of OpenAI's two endpoints a run drives."""

    COMPLETIONS = "completions"
    CHAT = "chat"

    @property
    def path(self) -> str:
        """Path of the endpoint below the server's URL."""
        return "/v1/chat/completions" if self is Endpoint.CHAT else "/v1/completions"


@dataclass(frozen=True, slots=True)
class LengthRange:
    """A uniform range of lengths in tokens, both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ConfigError(f"length range is {self.low}:{self.high}: give 1 <= LOW <= HIGH")

    @classmethod
    def parse(cls, text: str) -> "LengthRange":
        """Read `LOW:HIGH`."""
        low, separator, high = text.partition(":")
        if not (separator and low.isdecimal() and high.isdecimal()):
            raise ConfigError(f"length range is {text!r}: give LOW:HIGH, such as 64:192")
        return cls(int(low), int(high))

    def draw(self, rng: random.Random) -> int:
        """Draw one length."""
        return rng.randint(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Workload:
    """A seeded set of requests: how many, how long, to which endpoint."""

    num_prompts: int = 64
    input_tokens: LengthRange = LengthRange(128, 128)
    output_tokens: LengthRange = LengthRange(64, 64)
    endpoint: Endpoint = Endpoint.COMPLETIONS
    seed: int = 0
    ignore_eos: bool = True
    timeout: float | None = None
    """Seconds that a request has until its end; sent with it, as the two below. None sends none."""
    queue_timeout: float | None = None
    """Until it must have started."""
    ttft_timeout: float | None = None
    """Until it must have a token."""
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_prompts < 1:
            raise ConfigError(f"num_prompts is {self.num_prompts}: give at least 1")
        for name, seconds in self.deadlines.items():
            if seconds <= 0:
                raise ConfigError(f"{name} is {seconds}: give more than 0")

    @property
    def deadlines(self) -> dict[str, float]:
        """The body's fields for those that are set."""
        fields = {
            "timeout": self.timeout,
            "queue_timeout": self.queue_timeout,
            "ttft_timeout": self.ttft_timeout,
        }
        return {name: seconds for name, seconds in fields.items() if seconds is not None}

    def rng(self, purpose: str) -> random.Random:
        """Return the generator for one purpose, so that drawing more for one shifts no other."""
        return random.Random(f"{self.seed}/{purpose}")


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """One request, serialized before the clock starts."""

    index: int
    path: str
    body: bytes


def draw_lengths(workload: Workload) -> list[tuple[int, int]]:
    """Draw (input, output) lengths in tokens for every request."""
    rng = workload.rng("lengths")
    return [
        (workload.input_tokens.draw(rng), workload.output_tokens.draw(rng))
        for _ in range(workload.num_prompts)
    ]


def draw_arrivals(workload: Workload, request_rate: float) -> list[float]:
    """Draw Poisson arrival times in seconds; the first request arrives at 0."""
    rng = workload.rng("arrivals")
    arrivals_s = [0.0]
    while len(arrivals_s) < workload.num_prompts:
        arrivals_s.append(arrivals_s[-1] + rng.expovariate(request_rate))
    return arrivals_s


def build_request(
    workload: Workload, model: str, index: int, prompt: Prompt, num_output_tokens: int
) -> BenchRequest:
    """Serialize one greedy, streaming request that asks for the usage in its last chunk.

    `ignore_eos` is sent only when set: servers that lack it refuse unknown fields. A value of null
    in `extra_body` removes the field of that name, for servers that refuse one of ours.
    """
    body: dict[str, object] = {
        "model": model,
        "max_tokens": num_output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if workload.endpoint is Endpoint.CHAT:
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    if workload.ignore_eos:
        body["ignore_eos"] = True
    body.update(workload.deadlines)
    body.update(workload.extra_body)
    body = {name: value for name, value in body.items() if value is not None}
    return BenchRequest(index, workload.endpoint.path, json.dumps(body).encode())
