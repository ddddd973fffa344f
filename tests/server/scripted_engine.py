"""An engine that says what a test tells it to: for outputs that the real one rarely makes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path

from wheelpit import AsyncEngineArgs
from wheelpit.engine.messages import EngineStats, Ready
from wheelpit.engine.served_model import ServedModel, load_model_config, load_served_model
from wheelpit.engine.stats import FrontEndStats, StatLogger
from wheelpit.request import CompletionOutput, PromptType, RequestOutput, SamplingParams

Script = Callable[[], AsyncGenerator[RequestOutput, None]]


class ScriptedEngine:
    """A `ServedEngine` whose every request runs the same script."""

    errored = False
    ready = Ready(
        dtype="float32",
        device="cpu",
        num_blocks=16,
        block_size=16,
        max_num_seqs=8,
        max_num_batched_tokens=64,
        vocab_size=259,
    )

    def __init__(self, folder: Path, script: Script) -> None:
        args = AsyncEngineArgs(model=str(folder), served_model_name="tiny")
        path, config = load_model_config(args)
        self.model_config: ServedModel = load_served_model(args, path, config, 256)
        self._script = script

    def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        arrival_time: float | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        return self._script()

    async def abort(self, request_id: str | Iterable[str]) -> None: ...

    async def check_health(self) -> None: ...

    def stats(self) -> FrontEndStats:
        return FrontEndStats(
            num_requests=0,
            engine=EngineStats(),
            num_finished=0,
            num_prompt_tokens=0,
            num_generation_tokens=0,
        )

    def add_stat_logger(self, logger: StatLogger) -> None: ...

    def shutdown(self, timeout: float | None = None) -> None: ...


def delta(text: str, *token_ids: int, finish_reason: str | None = None) -> RequestOutput:
    """One output with one completion."""
    completion = CompletionOutput(0, text, list(token_ids), None, None, finish_reason)
    return RequestOutput("r", "p", [5], None, [completion], finish_reason is not None)
