"""What the server needs of an engine: `AsyncLLMEngine`, or a fake of it in tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Protocol

from wheelpit.engine.messages import Ready
from wheelpit.engine.stats import FrontEndStats, StatLogger
from wheelpit.request import PromptType, RequestOutput, SamplingParams
from wheelpit.text.chat_template import ChatTemplate
from wheelpit.text.tokenizer import Tokenizer


class ModelView(Protocol):
    """The served model's names, limits and defaults."""

    @property
    def served_model_names(self) -> tuple[str, ...]: ...
    @property
    def tokenizer(self) -> Tokenizer | None: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def max_token_id(self) -> int: ...
    @property
    def max_token_chars(self) -> int: ...
    @property
    def default_sampling_params(self) -> Mapping[str, Any]: ...

    def chat_template(self, tools: object = None) -> ChatTemplate: ...


class ServedEngine(Protocol):
    """An engine that is ready. Its methods are called on one event loop."""

    @property
    def model_config(self) -> ModelView: ...
    @property
    def errored(self) -> bool: ...
    @property
    def ready(self) -> Ready: ...

    def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        arrival_time: float | None = None,
    ) -> AsyncGenerator[RequestOutput, None]: ...

    async def abort(self, request_id: str | Iterable[str]) -> None: ...

    async def check_health(self) -> None: ...

    def stats(self) -> FrontEndStats: ...

    def add_stat_logger(self, logger: StatLogger) -> None: ...

    def shutdown(self, timeout: float | None = None) -> None: ...
