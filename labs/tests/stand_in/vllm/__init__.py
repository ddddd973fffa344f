"""A stand-in for vLLM, with the names and signatures of its version 0.24 that the labs use.

No model and no GPU: an answer is made of the prompt's words. What the versions of vLLM differ in,
or what vLLM does not promise, goes against the labs here: an id may come twice, a request's text
depends on how many others run beside it, and an aborted stream raises CancelledError.
"""

import asyncio
import enum
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__version__ = "0.24.0+stand.in"


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def clone(self) -> "SamplingParams":
        return replace(self)


@dataclass
class EngineArgs:
    model: str = "Qwen/Qwen3-0.6B"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.92
    max_num_seqs: int | None = None
    enforce_eager: bool = False
    compilation_config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tensor_parallel_size > 1:
            raise ValueError(
                f"tensor_parallel_size={self.tensor_parallel_size}, but there is 1 GPU"
            )


@dataclass
class AsyncEngineArgs(EngineArgs):
    enable_log_requests: bool = False


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[Any] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None

    def finished(self) -> bool:
        return self.finish_reason is not None


class RequestOutput:
    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: Any,
        outputs: list[CompletionOutput],
        finished: bool,
        metrics: Any = None,
        lora_request: Any = None,
        **kwargs: Any,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.lora_request = lora_request


class LLM:
    """The offline API: answers are made of the prompt's words."""

    def __init__(self, model: str, *, max_model_len: int | None = None, **engine_args: Any) -> None:
        self.model = model

    def generate(
        self,
        prompts: str | list[str],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
        priority: list[int] | None = None,
    ) -> list[RequestOutput]:
        listed = [prompts] if isinstance(prompts, str) else prompts
        given = sampling_params or SamplingParams()
        each = given if isinstance(given, list) else [given] * len(listed)
        return [
            _answer(number, prompt, params.max_tokens or 8)
            for number, (prompt, params) in enumerate(zip(listed, each, strict=True))
        ]


def _answer(number: int, prompt: str, num_words: int) -> RequestOutput:
    words = prompt.split()[:num_words]
    ids = list(range(len(words)))
    completion = CompletionOutput(0, " ".join(words), ids, None, None, finish_reason="length")
    return RequestOutput(str(number), prompt, [1], None, [completion], finished=True)


class AsyncLLMEngine:
    """`vllm.v1.engine.async_llm.AsyncLLM`, as far as the labs go."""

    def __init__(
        self,
        vllm_config: Any,
        executor_class: type,
        log_stats: bool,
        usage_context: Any = None,
        log_requests: bool = True,
        start_engine_loop: bool = True,
        stat_loggers: list[Any] | None = None,
    ) -> None:
        self.vllm_config = vllm_config
        self._num_running = 0
        self._aborted: set[str] = set()
        self._is_down = False

    @classmethod
    def from_engine_args(
        cls,
        engine_args: AsyncEngineArgs,
        start_engine_loop: bool = True,
        usage_context: Any = None,
        stat_loggers: list[Any] | None = None,
    ) -> "AsyncLLMEngine":
        return cls(engine_args, object, True)

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        prompt_text: str | None = None,
        lora_request: Any = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        if self._is_down:
            raise RuntimeError("EngineCore encountered an issue.")
        self._num_running += 1
        try:
            words = [*prompt.split(), f"({self._num_running} running)"] * 8
            num_words = sampling_params.max_tokens or len(words)
            if not sampling_params.ignore_eos:
                num_words = min(len(words), num_words)
            text = ""
            for number in range(num_words):
                await asyncio.sleep(0.002)
                if request_id in self._aborted:
                    raise asyncio.CancelledError
                text += (" " if text else "") + words[number % len(words)]
                is_last = number == num_words - 1
                reason = "length" if is_last else None
                ids = list(range(number + 1))
                completion = CompletionOutput(0, text, ids, None, None, finish_reason=reason)
                yield RequestOutput(request_id, prompt, [1], None, [completion], finished=is_last)
        finally:
            self._num_running -= 1

    async def abort(self, request_id: str, internal: bool = False) -> None:
        self._aborted.add(request_id)

    def get_tokenizer(self) -> Any:
        raise NotImplementedError("the labs do not use it")

    def shutdown(self, timeout: float | None = None) -> None:
        self._is_down = True
