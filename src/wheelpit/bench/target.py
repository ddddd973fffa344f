"""What is on the other end: the model's name and the best way to give it a prompt of known length.

Asked once before a run, over the same HTTP client. Servers differ: Wheelpit and vLLM have
`/tokenize` with a "prompt", llama.cpp's takes "content", transformers has none and takes text only.
"""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from tokenizers import Tokenizer

from wheelpit.bench.http_stream import Exchange, HttpClient
from wheelpit.bench.prompts import (
    WORDS,
    PromptWriter,
    WordCost,
    ids_from_pool,
    text_by_tokenizer,
    text_by_words,
)
from wheelpit.bench.workload import Endpoint, Prompt, Workload, build_request
from wheelpit.errors import ServerError

_PROBE_WORDS = (32, 160)


class PromptFormat(StrEnum):
    """How prompts are sent; `auto` takes ids where the server takes them."""

    AUTO = "auto"
    IDS = "ids"
    TEXT = "text"


class TargetError(ServerError):
    """The server under test is unreachable or does not answer as an OpenAI server would."""


async def find_model(client: HttpClient) -> str:
    """Return the name of the first model that the server lists."""
    listing = _json_object(await _ask(client, "/v1/models", None))
    models = listing.get("data")
    if not (isinstance(models, list) and models and isinstance(models[0], dict)):
        raise TargetError("server lists no model: give --model")
    return str(models[0]["id"])


async def choose_writer(
    client: HttpClient,
    workload: Workload,
    model: str,
    prompt_format: PromptFormat,
    tokenizer_path: Path | None,
) -> tuple[PromptWriter, str]:
    """Return how to write prompts for this server, and a word on it for the report."""
    is_ids_possible = workload.endpoint is Endpoint.COMPLETIONS
    if prompt_format is PromptFormat.IDS or (
        prompt_format is PromptFormat.AUTO and is_ids_possible
    ):
        pool = await _token_pool(client, model, tokenizer_path)
        if pool and is_ids_possible and await _takes_ids(client, workload, model, pool):
            return ids_from_pool(pool, workload.seed), "token ids"
        if prompt_format is PromptFormat.IDS:
            raise TargetError("server takes no token ids as a prompt: give --prompt-format text")
    if tokenizer_path is not None and workload.endpoint is not Endpoint.CHAT:
        return text_by_tokenizer(_token_counter(tokenizer_path), workload.seed), "text, exact"
    cost = await _probe_word_cost(client, workload, model)
    return text_by_words(cost, workload.seed), "text, calibrated"


async def _token_pool(
    client: HttpClient, model: str, tokenizer_path: Path | None
) -> tuple[int, ...]:
    """Return the ids of the word list in the server's vocabulary, or none if it does not tell."""
    text = " ".join(WORDS)
    if tokenizer_path is not None:
        return tuple(sorted(set(Tokenizer.from_file(str(tokenizer_path)).encode(text).ids)))
    bodies: tuple[dict[str, object], ...] = (
        {"model": model, "prompt": text, "add_special_tokens": False},
        {"content": text},
    )
    for body in bodies:
        try:
            answer = _json_object(await _ask(client, "/tokenize", body))
        except TargetError:
            continue
        tokens = answer.get("tokens")
        if isinstance(tokens, list) and len(tokens) > 1:
            return tuple(sorted({int(token) for token in tokens}))
    return ()


def _token_counter(tokenizer_path: Path) -> Callable[[str], int]:
    tokenizer = Tokenizer.from_file(str(tokenizer_path))

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    return count_tokens


async def _takes_ids(
    client: HttpClient, workload: Workload, model: str, pool: tuple[int, ...]
) -> bool:
    ids = list(pool[:8])
    exchange = await _probe(client, workload, model, ids)
    return exchange.status == 200 and (
        exchange.usage is None or exchange.usage.prompt_tokens == len(ids)
    )


async def _probe_word_cost(client: HttpClient, workload: Workload, model: str) -> WordCost:
    probes: list[tuple[int, int]] = []
    rng = workload.rng("probe")
    for num_words in _PROBE_WORDS:
        text = " ".join(rng.choices(WORDS, k=num_words))
        exchange = await _probe(client, workload, model, text)
        if exchange.status != 200 or exchange.usage is None:
            raise TargetError(
                f"server answers {exchange.status} to a probe of {num_words} words and tells no "
                f"usage: {exchange.body[:300]!r}; give --tokenizer"
            )
        probes.append((num_words, exchange.usage.prompt_tokens))
    return WordCost.fit(probes)


async def _probe(client: HttpClient, workload: Workload, model: str, prompt: Prompt) -> Exchange:
    request = build_request(workload, model, 0, prompt, 2)
    try:
        return await client.post(request.path, request.body, is_stream=True)
    except (OSError, TimeoutError) as error:
        raise TargetError(f"server does not answer a probe on {request.path}: {error}") from error


async def _ask(client: HttpClient, path: str, body: dict[str, object] | None) -> Exchange:
    try:
        if body is None:
            exchange = await client.get(path)
        else:
            exchange = await client.post(path, json.dumps(body).encode())
    except (OSError, TimeoutError) as error:
        raise TargetError(f"server does not answer {path}: {error}") from error
    if exchange.status != 200:
        raise TargetError(f"server answers {exchange.status} to {path}: {exchange.body[:300]!r}")
    return exchange


def _json_object(exchange: Exchange) -> dict[str, object]:
    try:
        answer = json.loads(exchange.body)
    except ValueError as error:
        raise TargetError(f"server answers no JSON: {exchange.body[:100]!r}") from error
    if not isinstance(answer, dict):
        raise TargetError(f"server answers no JSON object: {exchange.body[:100]!r}")
    return answer
