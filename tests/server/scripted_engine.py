"""An engine that says what a test tells it to: for outputs that the real one rarely makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from wheelpit import AsyncEngineArgs
from wheelpit.engine.arrival import Arrival
from wheelpit.engine.limits import Limits
from wheelpit.engine.messages import EngineStats, Ready
from wheelpit.engine.progress import Unprogressed
from wheelpit.engine.reservation import Reservation
from wheelpit.engine.served_model import ServedModel, load_model_config, load_served_model
from wheelpit.engine.stats import FrontEndStats, StatLogger
from wheelpit.engine.supervisor import EngineHealth, EngineState
from wheelpit.request import (
    CompletionOutput,
    PromptType,
    RequestOutput,
    RequestProgress,
    SamplingParams,
)

Script = Callable[[], AsyncGenerator[RequestOutput, None]]


class ScriptedRequest:
    """Goes through one script; closing it changes nothing, as if it came too late."""

    def __init__(self, script: AsyncGenerator[RequestOutput, None]) -> None:
        self._script = script

    async def get(self) -> RequestOutput:
        return await anext(self._script)

    def close(self) -> None: ...


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
        self.limits = Limits()
        self.tenant_keys: dict[str, str] = {}
        self.is_admitting = True
        self.is_full = False
        self.is_stalled = False
        self.state = EngineState.SERVING
        self.engine_pid: int | None = None
        self.refusal: Exception | None = None
        self.reserved: list[Reservation] = []
        self.progress_to_tell: RequestProgress | None = None
        self.questions: asyncio.Queue[str] = asyncio.Queue()
        """The ids whose progress was asked for, each to be written in a comment."""

    async def add_request(
        self,
        request_id: str,
        prompt: PromptType,
        params: SamplingParams,
        *,
        reservation: Reservation | None = None,
    ) -> ScriptedRequest:
        assert reservation in self.reserved
        return ScriptedRequest(self._script())

    def reserve_all(
        self, arrival: Arrival, places: Sequence[tuple[str, int]], n: int = 1
    ) -> list[Reservation]:
        if self.refusal is not None:
            raise self.refusal
        reservations = [
            Reservation(
                name, number=number, arrival_s=0.0, num_tokens=num_tokens, tenant=arrival.tenant
            )
            for number, (name, num_tokens) in enumerate(places, len(self.reserved))
        ]
        self.reserved += reservations
        return reservations

    def release(self, reservation: Reservation, error: BaseException | None = None) -> None:
        assert reservation in self.reserved

    def progress(self, request_id: str) -> RequestProgress | None:
        self.questions.put_nowait(request_id)
        return self.progress_to_tell

    def update_limits(self, limits: Limits) -> None:
        self.limits = limits

    async def check_health(self) -> None: ...

    def health(self) -> EngineHealth:
        return EngineHealth(
            state=self.state, heartbeat_age_s=0.0, is_stalled=self.is_stalled, num_restarts=0
        )

    def oldest_unprogressed(self) -> Unprogressed | None:
        return None

    def attach(self) -> None: ...

    def stop_admitting(self, retry_after_s: float) -> None:
        self.is_admitting = False

    def restart_engine(self, reason: str) -> None: ...

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
