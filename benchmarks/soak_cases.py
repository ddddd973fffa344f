"""What the clients of `soak.py` ask: requests of all features, what is refused, and the rest."""

import json
import random
from dataclasses import dataclass

from wheelpit.bench.prompts import WORDS

Body = dict[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """A request without its peculiarities of the moment."""

    path: str
    body: Body


def make_cases(model: str, context: int, seed: int) -> list[Case]:
    """Requests of all features; context: the model's, in tokens."""
    draw = random.Random(seed)
    opening = " ".join(draw.choices(WORDS, k=6))
    cases = []
    for index in range(32):
        words = " ".join(draw.choices(WORDS, k=draw.randint(1, 8)))
        text = f"{opening} {words}" if index % 4 == 0 else words
        body: Body = {"model": model, "max_tokens": draw.randint(8, 48)}
        body |= FEATURES[index % len(FEATURES)]
        is_greedy = index % 2 == 1 and "n" not in body
        body |= {"temperature": 0.0 if is_greedy else 0.9, "seed": index}
        if index % 3 == 0:
            body["messages"] = [{"role": "user", "content": text}]
            if "logprobs" in body:
                body |= {"logprobs": True, "top_logprobs": 2}
            cases.append(Case("/v1/chat/completions", body))
            continue
        long_ids = [draw.randrange(10, 240) for _ in range(context // 2)]
        ids = [draw.randrange(10, 240) for _ in range(draw.randint(1, 40))]
        body["prompt"] = (text, ids, [text, words], long_ids)[index // 3 % 4]
        cases.append(Case("/v1/completions", body))
    return cases


FEATURES: tuple[Body, ...] = (
    {},
    {"n": 3},
    {"stop": ["e", "the"]},
    {"logprobs": 2},
    {"ignore_eos": True, "min_tokens": 8},
    {"n": 2, "stop": "a", "include_stop_str_in_output": True},
    {"presence_penalty": 0.5, "repetition_penalty": 1.2, "ignore_eos": True},
)


def _body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


TOO_LONG = [{"role": "user", "content": "x" * 50_000}]

WRONG = (
    ("POST", "/v1/completions", b"{", 400),
    ("POST", "/v1/completions", _body(prompt="x", temperature=-1), 400),
    ("POST", "/v1/completions", _body(prompt="x", model="another"), 404),
    ("POST", "/v1/completions", _body(prompt=[5] * 10_000), 400),
    ("POST", "/v1/completions", _body(prompt="x", best_of=3), 400),
    ("POST", "/v1/completions", _body(prompt="x" * 100_000), 400),
    ("POST", "/v1/completions", b"x" * 2_000_000, 413),
    ("POST", "/v1/chat/completions", _body(messages=[]), 400),
    (
        "POST",
        "/v1/chat/completions",
        _body(messages=TOO_LONG),
        400,
    ),
    ("DELETE", "/v1/requests/nobody", b"", 404),
    ("POST", "/v1/requests/nobody/cancel", b"", 404),
    ("GET", "/v1/streams/nobody", b"", 404),
    ("GET", "/v1/models/nobody", b"", 404),
    ("GET", "/nobody", b"", 404),
    ("POST", "/v1/models", b"", 405),
    ("POST", "/admin/restart-engine", b"", 401),
)
"""(method, path, body, status) of what is refused."""

PLACES = (
    ("GET", "/metrics", b""),
    ("GET", "/health", b""),
    ("HEAD", "/health", b""),
    ("GET", "/health/live", b""),
    ("GET", "/health/ready", b""),
    ("GET", "/health/progress", b""),
    ("GET", "/v1/models", b""),
    ("GET", "/version", b""),
    ("GET", "/load", b""),
    ("GET", "/openapi.json", b""),
    ("POST", "/tokenize", _body(prompt="some words")),
    ("POST", "/detokenize", _body(tokens=[20, 21, 22])),
)
"""(method, path, body) of what anybody may ask."""
