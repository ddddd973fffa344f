"""What a caller sends and what comes back: sampling parameters, prompts and outputs.

These are the shared nouns of the package: they import nothing of ours but the exceptions, and no
torch. Names, defaults and error messages are those of vLLM's Python API, so that a script written
for it runs unchanged. Everything here can be pickled and sent over msgpack.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

import msgspec

from wheelpit.errors import ValidationError

log = logging.getLogger(__name__)

GREEDY_TEMPERATURE = 1e-5
"""Temperatures below this mean argmax."""

LOWEST_TEMPERATURE = 1e-2
"""Random sampling below this is raised to it: dividing logits by less overflows float16."""

MAX_N = 16384
"""The most completions one request may ask for."""


class RequestOutputKind(enum.Enum):
    """How much each `RequestOutput` of a stream carries."""

    CUMULATIVE = 0
    """Everything so far."""
    DELTA = 1
    """Only what is new since the previous output."""
    FINAL_ONLY = 2
    """One output, when the request has finished."""


class SamplingType(enum.IntEnum):
    """What kind of draw a request needs."""

    GREEDY = 0
    RANDOM = 1
    RANDOM_SEED = 2


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True, dict=False):
    """How to choose the tokens of one request. Mirrors vLLM's class of this name.

    Logits go through, in this order: allowed_token_ids, bad_words, logit_bias and min_tokens,
    repetition/frequency/presence penalties, temperature, min_p, top_k, top_p, then the draw.

    Raises ValidationError (a ValueError) from the constructor for values out of range and
    TypeError for a wrong type where vLLM does. Bounds that need the model (vocabulary, context)
    are checked when the request is submitted.
    """

    n: int = 1
    """Number of completions; each is an independent sequence."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """Keep this many most likely tokens; 0 (or -1) keeps all."""
    min_p: float = 0.0
    seed: int | None = None
    """None derives one from the engine's seed and the request's number."""
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """None means up to the end of the context."""
    min_tokens: int = 0
    logprobs: int | None = None
    """Log-probabilities of this many tokens at each output position; -1 is the whole vocabulary."""
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    skip_reading_prefix_cache: bool | None = None
    """None means: skip it if and only if prompt_logprobs are wanted."""
    extra_args: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Normalise, then validate; runs on construction, `clone()` and decoding."""
        self._check_types()
        self._check_temperature()
        if self.seed == -1:
            self.seed = None
        self.stop = _as_list(self.stop)
        self.stop_token_ids = list(self.stop_token_ids or ())
        self.bad_words = list(self.bad_words or ())
        if self.logprobs is True:
            self.logprobs = 1
        if self.prompt_logprobs is True:
            self.prompt_logprobs = 1
        if self.top_k == -1:
            self.top_k = 0
        self._check_ranges()
        self._check_lists()
        if self.is_greedy:
            if self.n > 1:
                raise ValidationError(
                    f"n must be 1 when using greedy sampling, got {self.n}.",
                    parameter="n",
                    value=self.n,
                )
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0
        if self.skip_reading_prefix_cache is None:
            self.skip_reading_prefix_cache = self.prompt_logprobs is not None

    @classmethod
    def from_optional(cls, **given: Any) -> SamplingParams:
        """Build from nullable values (an HTTP body): None means the default.

        logit_bias keys may be strings; its values are clamped to [-100, 100] as OpenAI's are.
        `max_tokens=None` is meaningful and kept.
        """
        values = {k: v for k, v in given.items() if v is not None or k == "max_tokens"}
        bias = values.get("logit_bias")
        if bias is not None:
            try:
                values["logit_bias"] = {
                    int(token): min(100.0, max(-100.0, float(value)))
                    for token, value in bias.items()
                }
            except (TypeError, ValueError) as error:
                raise ValidationError(
                    "logit_bias must map token ids to numbers", parameter="logit_bias", value=bias
                ) from error
        return cls(**values)

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_TEMPERATURE

    @property
    def sampling_type(self) -> SamplingType:
        if self.is_greedy:
            return SamplingType.GREEDY
        return SamplingType.RANDOM if self.seed is None else SamplingType.RANDOM_SEED

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as the list it is after construction."""
        return _as_list(self.stop)

    @property
    def output_text_buffer_length(self) -> int:
        """Characters held back while running, so that no part of a stop string gets out."""
        if not self.stop or self.include_stop_str_in_output:
            return 0
        return max(len(stop) for stop in self.stop_strings) - 1

    @property
    def has_penalties(self) -> bool:
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )

    def clone(self) -> SamplingParams:
        """Copy and validate again: the fields of the original may have been assigned since."""
        copied = msgspec.structs.replace(self)
        if copied.logit_bias is not None:
            copied.logit_bias = dict(copied.logit_bias)
        if copied.allowed_token_ids is not None:
            copied.allowed_token_ids = list(copied.allowed_token_ids)
        return copied

    def _check_types(self) -> None:
        for name in ("n", "top_k", "min_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                kind = ValueError if name == "n" else TypeError
                raise kind(f"{name} must be an int, got {type(value).__name__} {value!r}")
        for name in ("max_tokens", "seed"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be an int or None, got {value!r}")
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                raise TypeError(f"{name} must be an int or None, got {value!r}")
        for name in (
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "temperature",
            "top_p",
            "min_p",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {value!r}")

    def _check_temperature(self) -> None:
        if not math.isfinite(self.temperature) or not 0.0 <= self.temperature <= 2.0:
            raise ValidationError(
                f"temperature must be in [0, 2], got {self.temperature}.",
                parameter="temperature",
                value=self.temperature,
            )
        if GREEDY_TEMPERATURE <= self.temperature < LOWEST_TEMPERATURE:
            log.warning(
                "temperature %s is below %s and was raised to it: lower values overflow",
                self.temperature,
                LOWEST_TEMPERATURE,
            )
            self.temperature = LOWEST_TEMPERATURE

    def _check_ranges(self) -> None:
        def require(is_valid: bool, name: str, rule: str) -> None:
            if not is_valid:
                value = getattr(self, name)
                raise ValidationError(f"{name} {rule}, got {value}.", parameter=name, value=value)

        require(self.n >= 1, "n", "must be at least 1")
        require(self.n <= MAX_N, "n", f"must be at most {MAX_N}")
        for name in ("presence_penalty", "frequency_penalty"):
            require(-2.0 <= getattr(self, name) <= 2.0, name, "must be in [-2, 2]")
        require(
            math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0.0,
            "repetition_penalty",
            "must be finite and greater than zero",
        )
        require(0.0 < self.top_p <= 1.0, "top_p", "must be in (0, 1]")
        require(self.top_k >= 0, "top_k", "must be 0 (off), -1 (off) or at least 1")
        require(0.0 <= self.min_p <= 1.0, "min_p", "must be in [0, 1]")
        require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "must be at least 1")
        require(self.min_tokens >= 0, "min_tokens", "must be greater than or equal to 0")
        require(
            self.max_tokens is None or self.min_tokens <= self.max_tokens,
            "min_tokens",
            f"must be less than or equal to max_tokens={self.max_tokens}",
        )
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            require(value is None or value >= -1, name, "must be non-negative or -1")
        require(self.seed is None or -(2**63) <= self.seed < 2**63, "seed", "must fit in 64 bits")

    def _check_lists(self) -> None:
        stops = self.stop_strings
        if not all(isinstance(stop, str) for stop in stops):
            raise ValidationError("stop must be strings", parameter="stop", value=stops)
        if any(not stop for stop in stops):
            raise ValidationError(
                "stop cannot contain an empty string.", parameter="stop", value=stops
            )
        if stops and not self.detokenize:
            raise ValidationError(
                "stop strings are only supported when detokenize is True. "
                "Set detokenize=True to use stop.",
                parameter="stop",
                value=stops,
            )
        if not _are_token_ids(self.stop_token_ids or ()):
            raise ValidationError(
                f"stop_token_ids must contain only integers, got {self.stop_token_ids}.",
                parameter="stop_token_ids",
                value=self.stop_token_ids,
            )
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise ValidationError(
                "allowed_token_ids is not None and empty!", parameter="allowed_token_ids", value=[]
            )
        if not _are_token_ids(self.allowed_token_ids or ()):
            raise ValidationError(
                "allowed_token_ids must contain only integers",
                parameter="allowed_token_ids",
                value=self.allowed_token_ids,
            )
        if not all(isinstance(word, str) and word for word in self.bad_words or ()):
            raise ValidationError(
                "bad_words cannot contain an empty string.",
                parameter="bad_words",
                value=self.bad_words,
            )
        if not all(math.isfinite(value) for value in (self.logit_bias or {}).values()):
            raise ValidationError(
                "logit_bias values must be finite", parameter="logit_bias", value=self.logit_bias
            )


def _as_list(stop: str | list[str] | None) -> list[str]:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else list(stop)


def _are_token_ids(values: Sequence[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str
    cache_salt: NotRequired[str]


class TokensPrompt(TypedDict):
    """A prompt as token ids. `prompt` is its text, if known; it is echoed, not tokenized."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]
    cache_salt: NotRequired[str]


PromptType: TypeAlias = str | list[int] | TextPrompt | TokensPrompt


@dataclass(slots=True)
class Logprob:
    """The log-probability of one token at one position; rank 1 is the most likely token."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PositionLogprobs: TypeAlias = dict[int, Logprob]
PromptLogprobs: TypeAlias = list[PositionLogprobs | None]
SampleLogprobs: TypeAlias = list[PositionLogprobs]


@dataclass(slots=True)
class CompletionOutput:
    """One completion of a request.

    finish_reason is None while running, then "stop", "length", "abort" or "error". stop_reason
    says which stop string or stop token id ended it; with "abort", which of its deadlines it missed
    ("timeout", "queue_timeout", "ttft_timeout"); None for EOS and for the others.
    """

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: SampleLogprobs | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: None = None
    error: str | None = None
    """With finish_reason "error": what went wrong. Not in vLLM."""

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """When things happened to one request. Known to vLLM as RequestStateStats.

    arrival_time is wall clock (seconds since the epoch); the `_ts` fields are monotonic seconds of
    the front end's clock, comparable with one another only.
    """

    arrival_time: float = 0.0
    num_generation_tokens: int = 0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0
    num_preemptions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestProgress:
    """How far a request has got that may have no output yet.

    position: its place in the queue, from 1; None once it runs. eta_s: estimated seconds until it
    starts; None once it runs, and while nothing is known to tell it from.
    """

    state: Literal["queued", "running"]
    position: int | None = None
    eta_s: float | None = None


class RequestOutput:
    """What is known of a request at one moment: its prompt and its completions.

    `request_id` is the caller's. `finished` is True on the last output only. Unknown keyword
    arguments are ignored with a warning, so that code built for newer vLLM still runs.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: PromptLogprobs | None,
        outputs: list[CompletionOutput],
        finished: bool,
        metrics: RequestMetrics | None = None,
        lora_request: None = None,
        encoder_prompt: None = None,
        encoder_prompt_token_ids: None = None,
        num_cached_tokens: int | None = None,
        *,
        kv_transfer_params: dict[str, Any] | None = None,
        **ignored: Any,
    ) -> None:
        if ignored:
            log.warning("RequestOutput ignores unknown arguments: %s", ", ".join(sorted(ignored)))
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.lora_request = lora_request
        self.encoder_prompt = encoder_prompt
        self.encoder_prompt_token_ids = encoder_prompt_token_ids
        self.num_cached_tokens = num_cached_tokens
        self.kv_transfer_params = kv_transfer_params

    def add(self, next_output: RequestOutput, aggregate: bool) -> None:
        """Merge a later output into this unread one.

        aggregate: True for DELTA outputs (texts, ids and logprobs are appended), False for
        CUMULATIVE ones (the later completion replaces the earlier of its index).
        """
        self.finished |= next_output.finished
        self.metrics = next_output.metrics
        if next_output.prompt_logprobs is not None:
            self.prompt_logprobs = next_output.prompt_logprobs
        places = {completion.index: place for place, completion in enumerate(self.outputs)}
        for new in next_output.outputs:
            place = places.get(new.index)
            if place is None:
                self.outputs.append(new)
            elif aggregate:
                _append(self.outputs[place], new)
            else:
                self.outputs[place] = new

    def __repr__(self) -> str:
        return (
            f"RequestOutput(request_id={self.request_id!r}, prompt={self.prompt!r}, "
            f"prompt_token_ids={self.prompt_token_ids}, outputs={self.outputs}, "
            f"finished={self.finished}, metrics={self.metrics}, "
            f"num_cached_tokens={self.num_cached_tokens})"
        )


def _append(old: CompletionOutput, new: CompletionOutput) -> None:
    old.text += new.text
    old.token_ids = [*old.token_ids, *new.token_ids]
    if new.logprobs:
        old.logprobs = [*(old.logprobs or ()), *new.logprobs]
    old.cumulative_logprob = new.cumulative_logprob
    old.finish_reason = new.finish_reason
    old.stop_reason = new.stop_reason
    old.error = new.error
