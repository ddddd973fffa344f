"""What the server needs of an engine: `AsyncLLMEngine`, or a fake of it in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from wheelpit.engine.arrival import Arrival
from wheelpit.engine.limits import Limits
from wheelpit.engine.messages import Ready
from wheelpit.engine.progress import Unprogressed
from wheelpit.engine.reservation import Reservation
from wheelpit.engine.stats import FrontEndStats, StatLogger
from wheelpit.engine.supervisor import EngineHealth
from wheelpit.request import PromptType, RequestOutput, RequestProgress, SamplingParams
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


class SubmittedRequest(Protocol):
    """A request that the engine works on."""

    async def get(self) -> RequestOutput:
        """Wait for something new; everything that is new is one output."""
        ...

    def close(self) -> None:
        """End it with "abort", unless it has ended: its last output is there to get at once."""
        ...


class ServedEngine(Protocol):
    """An engine that is ready. Its methods are called on one event loop."""

    @property
    def model_config(self) -> ModelView: ...
    @property
    def errored(self) -> bool: ...
    @property
    def ready(self) -> Ready: ...

    def attach(self) -> None:
        """Watch over the engine process from the running loop. Idempotent."""
        ...

    async def add_request(
        self,
        request_id: str,
        prompt: PromptType,
        params: SamplingParams,
        *,
        reservation: Reservation | None = None,
    ) -> SubmittedRequest:
        """Start one request in the place that `reserve` gave it, which is the engine's from now on.

        One that misses a deadline ends with one last output, finish_reason "abort" and stop_reason
        "timeout", "queue_timeout" or "ttft_timeout", with all its tokens so far. ValidationError.
        """
        ...

    def reserve_all(
        self, arrival: Arrival, places: Sequence[tuple[str, int]], n: int = 1
    ) -> list[Reservation]:
        """Admit a request on its arrival, before anything is spent on it, tokenizing included.

        places: (request id, about how many tokens) of each of its prompts; all get a place, or
        none does. n: sequences of each. Give every reservation to `add_request` or to `release`.
        Raises OverloadedError, and ValidationError for a timeout that is not positive and finite;
        a request that was refused is counted and logged already.
        """
        ...

    def release(self, reservation: Reservation, error: BaseException | None = None) -> None:
        """Give back a place that `add_request` has not taken over, else do nothing. Idempotent.

        error: why; decides whether the request is counted as "refused" (its own fault), "abort"
        (None, or its client left) or "error".
        """
        ...

    def progress(self, request_id: str) -> RequestProgress | None:
        """How far a request has got; None if there is none of this id (any more)."""
        ...

    @property
    def limits(self) -> Limits:
        """What the engine takes on at present."""
        ...

    def update_limits(self, limits: Limits) -> None:
        """Make other limits hold from now on; what was admitted stays. Logs each change."""
        ...

    @property
    def tenant_keys(self) -> Mapping[str, str]:
        """SHA-256 of an API key, as 64 lower-case hex digits -> its tenant. From tenant_config."""
        ...

    @property
    def is_admitting(self) -> bool:
        """False after `stop_admitting`."""
        ...

    @property
    def is_full(self) -> bool:
        """Would the limits refuse a request that came now?"""
        ...

    def stop_admitting(self, retry_after_s: float) -> None:
        """Refuse new requests for good, with reason "draining"; those that are in go on."""
        ...

    async def check_health(self) -> None:
        """Raise EngineDeadError if there will be no engine any more, or it hangs just now."""
        ...

    def health(self) -> EngineHealth:
        """How the engine process does; costs nothing, never raises."""
        ...

    def oldest_unprogressed(self) -> Unprogressed | None:
        """The request that has waited longest for anything to happen to it."""
        ...

    @property
    def engine_pid(self) -> int | None:
        """The engine process's; None between two."""
        ...

    def restart_engine(self, reason: str) -> None:
        """Replace the engine process; to the requests it is a pause. EngineDeadError."""
        ...

    def stats(self) -> FrontEndStats: ...

    def add_stat_logger(self, logger: StatLogger) -> None: ...

    def shutdown(self, timeout: float | None = None) -> None: ...
