"""Check a prompt and its sampling parameters once, and turn them into messages to the engine.

Everything a caller can get wrong is found here, before a request exists: what leaves this module
is valid for this model. No I/O, no event loop.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wheelpit.engine.admission import Reservation
from wheelpit.engine.messages import AddRequest
from wheelpit.engine.served_model import ServedModel
from wheelpit.errors import ValidationError
from wheelpit.request import SamplingParams

MAX_LOGIT_BIAS_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A prompt in one of its two forms. `token_ids` is None for text yet to be tokenized."""

    text: str | None
    token_ids: list[int] | None
    cache_salt: str | None = None


def parse_prompt(prompt: Any) -> ParsedPrompt:
    """Accept text, token ids or a prompt dictionary; TypeError for anything else."""
    if isinstance(prompt, str):
        return ParsedPrompt(prompt, None)
    if isinstance(prompt, (list, tuple)):
        return ParsedPrompt(None, _token_ids(prompt))
    if not isinstance(prompt, dict):
        raise TypeError("Prompt should be a string, list of tokens, or dictionary")
    for key in ("multi_modal_data", "prompt_embeds", "encoder_prompt", "decoder_prompt"):
        if prompt.get(key):
            raise ValidationError(f"prompts with {key} are not supported", parameter=key)
    salt = prompt.get("cache_salt")
    if salt is not None and (not isinstance(salt, str) or not salt):
        raise ValidationError(
            "cache_salt must be a non-empty string", parameter="cache_salt", value=salt
        )
    text = prompt.get("prompt")
    if "prompt_token_ids" in prompt:
        return ParsedPrompt(text, _token_ids(prompt["prompt_token_ids"]), salt)
    if "prompt" not in prompt:
        raise TypeError("Prompt dictionary must contain text, tokens, or embeddings")
    if not isinstance(text, str):
        raise TypeError("Prompt text should be a string")
    return ParsedPrompt(text, None, salt)


def _token_ids(values: Any) -> list[int]:
    if not isinstance(values, (list, tuple)):
        raise TypeError("Token prompt should be a list of integers")
    for value in values:
        if type(value) is not int:
            raise TypeError("Token prompt should be a list of integers")
    return list(values)


class InputProcessor:
    """Validation against one served model and the size of its cache."""

    def __init__(self, model: ServedModel, seed: int, capacity_tokens: int) -> None:
        """capacity_tokens: what the whole KV cache holds."""
        self._model = model
        self._seed = seed
        self._capacity_tokens = capacity_tokens
        self._num_requests = 0

    def check_text(self, text: str) -> None:
        """Refuse a text that cannot fit whatever its tokens, before tokenizing costs anything."""
        if self._model.tokenizer is None:
            raise ValidationError(
                "this engine has no tokenizer (skip_tokenizer_init): give prompt_token_ids",
                parameter="prompt",
            )
        limit = self._model.max_model_len * self._model.max_token_chars
        if len(text) > limit:
            raise ValidationError(
                f"This model's maximum context length is {self._model.max_model_len} tokens, "
                f"so at most {limit} characters. However, your prompt has {len(text)} "
                "characters. Please reduce the length of the prompt.",
                parameter="input_text",
                value=len(text),
            )

    def check_token_ids(self, token_ids: Sequence[int]) -> None:
        """Bounds on the prompt's length and on each id."""
        limit = self._model.max_model_len
        length = len(token_ids)
        if length == 0:
            raise ValidationError("The decoder prompt cannot be empty", parameter="prompt")
        if length > limit:
            raise ValidationError(
                f"The decoder prompt (length {length}) is longer than the maximum model length "
                f"of {limit}. Shorten the prompt or raise max_model_len.",
                parameter="input_tokens",
                value=length,
            )
        if length == limit:
            raise ValidationError(
                f"The decoder prompt (length {length}) plus the number of requested output "
                f"tokens (at least 1) is longer than the maximum model length of {limit}. "
                "Shorten the prompt or raise max_model_len.",
                parameter="input_tokens",
                value=length,
            )
        if length + 1 > self._capacity_tokens:
            raise ValidationError(
                f"The prompt has {length} tokens, the KV cache holds {self._capacity_tokens}: "
                "shorten it or raise kv_cache_memory_bytes",
                parameter="input_tokens",
                value=length,
            )
        highest, lowest = max(token_ids), min(token_ids)
        if highest > self._model.max_token_id or lowest < 0:
            bad = highest if highest > self._model.max_token_id else lowest
            raise ValidationError(
                f"Token id {bad} is out of vocabulary", parameter="prompt_token_ids", value=bad
            )

    def check_params(self, params: SamplingParams) -> SamplingParams:
        """Return a validated private copy; raise for what this model cannot do."""
        if not isinstance(params, SamplingParams):
            raise TypeError(
                f"sampling_params should be SamplingParams, got {type(params).__name__}"
            )
        params = params.clone()
        vocab_size = self._model.vocab_size
        for name in ("logprobs", "prompt_logprobs"):
            self._check_logprobs(name, getattr(params, name))
        self._check_ids("logit_bias", params.logit_bias or (), vocab_size)
        self._check_ids("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
        self._check_ids("stop_token_ids", params.stop_token_ids or (), vocab_size)
        if self._model.tokenizer is None:
            if params.stop_strings or params.bad_words:
                raise ValidationError(
                    "stop strings and bad_words need a tokenizer, and this engine has none "
                    "(skip_tokenizer_init)"
                )
            params.detokenize = False
        return params

    def _check_logprobs(self, name: str, value: int | None) -> None:
        if value is None or self._model.max_logprobs == -1:
            return
        wanted = self._model.vocab_size if value == -1 else value
        if wanted > self._model.max_logprobs:
            raise ValidationError(
                f"Requested {name} of {value}, which is greater than max allowed: "
                f"{self._model.max_logprobs}",
                parameter=name,
                value=value,
            )

    def _check_ids(self, name: str, ids: Any, vocab_size: int) -> None:
        bad = [token_id for token_id in ids if not 0 <= token_id < vocab_size]
        if bad:
            raise ValidationError(
                f"{name} contains out-of-vocab token ids {bad[:10]}; the vocabulary has "
                f"{vocab_size} entries",
                parameter=name,
                value=bad[0],
            )

    def build(
        self,
        internal_id: str,
        token_ids: list[int],
        params: SamplingParams,
        reservation: Reservation,
        cache_salt: str | None = None,
    ) -> list[AddRequest]:
        """One message per completion; `params` is what `check_params` returned."""
        number = self._num_requests
        self._num_requests += 1
        room = self._model.max_model_len - len(token_ids)
        max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
        eos_token_ids = [] if params.ignore_eos else self._model.eos_token_ids
        bad_words = self._tokenize_bad_words(params.bad_words or ())
        messages = []
        for index in range(params.n):
            child_id = internal_id if params.n == 1 else f"{index}_{internal_id}"
            messages.append(
                AddRequest(
                    request_id=child_id,
                    prompt_token_ids=token_ids,
                    params=params,
                    max_tokens=max_tokens,
                    seed=self._resolve_seed(params.seed, number, index),
                    eos_token_ids=eos_token_ids,
                    primary_eos_token_id=self._model.primary_eos_token_id,
                    bad_words_token_ids=bad_words,
                    priority=reservation.priority,
                    arrival_s=reservation.arrival_s,
                    cache_salt=cache_salt,
                    tenant=reservation.tenant,
                    deadlines=reservation.deadlines,
                )
            )
        return messages

    def _resolve_seed(self, seed: int | None, number: int, index: int) -> int:
        """A request's own seed, or one from the engine's seed and the request's number.

        So a seeded request repeats whatever else runs, and a program that sends the same
        requests in the same order repeats as a whole.
        """
        if seed is not None:
            return (seed + index) & (2**64 - 1)
        packed = struct.pack("<QQQ", self._seed, number, index)
        return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")

    def _tokenize_bad_words(self, words: Sequence[str]) -> list[list[int]]:
        """Each word as it is tokenized at the start of a text and after a space."""
        tokenizer = self._model.tokenizer
        if not words or tokenizer is None:
            return []
        found: list[list[int]] = []
        for word in words:
            for text in (word.lstrip(), " " + word.lstrip()):
                ids = tokenizer.encode(text, add_special_tokens=False)
                if ids and ids not in found:
                    found.append(ids)
        return found
