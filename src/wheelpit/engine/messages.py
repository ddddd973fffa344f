"""The messages that cross the socket between the front end and the engine process.

Frames are msgpack, encoded by `engine/transport.py`. Requests go in one message each; results
come back as one `StepOutput` per step, whatever the number of sequences.
"""

from __future__ import annotations

import msgspec

from wheelpit.config import ComputePlan, EngineConfig
from wheelpit.request import SamplingParams
from wheelpit.scheduling.deadlines import NO_DEADLINES, Deadlines
from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.scheduling.tenants import TenantShare


class Start(msgspec.Struct, frozen=True, tag=True):
    """First frame to the engine: what to load."""

    config: EngineConfig


class AddRequest(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Run one sequence. `request_id` is the internal, unique id.

    output_token_ids: what it generated on an engine that is gone; it goes on from there.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    seed: int
    eos_token_ids: list[int] = []
    primary_eos_token_id: int | None = None
    bad_words_token_ids: list[list[int]] = []
    priority: int = 0
    arrival_s: float = 0.0
    cache_salt: str | None = None
    tenant: str = ""
    """Whose request it is, for the fair policy and the tenants' seats."""
    deadlines: Deadlines = NO_DEADLINES
    output_token_ids: list[int] = []


class SetTenants(msgspec.Struct, frozen=True, tag=True):
    """From now on these weights and seats hold; `default` for every tenant not named."""

    tenants: dict[str, TenantShare]
    default: TenantShare = TenantShare()


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Drop these sequences, whatever their state. Unknown ids are ignored."""

    request_ids: list[str]


class Call(msgspec.Struct, frozen=True, tag=True):
    """Run one of the engine's few control methods; answered by a `CallResult` with the same id."""

    call_id: int
    method: str


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """End after the step in flight."""


class Phase(msgspec.Struct, frozen=True, tag=True):
    """A part of the start-up that has ended, and how long it took."""

    name: str
    seconds: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The engine accepts requests. Carries what only the engine could resolve."""

    dtype: str
    device: str
    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    vocab_size: int
    compute_plan: ComputePlan | None = None


class StartFailed(msgspec.Struct, frozen=True, tag=True):
    """The engine could not start; it ends after this frame. `kind` is the exception's name."""

    kind: str
    message: str


class Fork(msgspec.Struct, frozen=True, tag=True):
    """To a fork server: make an engine, for the socket that comes with this."""

    number: int


class Forked(msgspec.Struct, frozen=True, tag=True):
    """That engine is there."""

    number: int
    pid: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """It is not there any more. status: its exit status, or the signal that ended it, negative."""

    number: int
    status: int


class TokenOutput(msgspec.Struct, array_like=True, omit_defaults=True):
    """What one step brought for one sequence.

    finish_reason: None while it runs, else "stop", "length", "abort" or "error".
    stop_reason: the stop token id that ended it, or the name of the limit that it ran into
    (see `scheduling/deadlines.py`). error: the message, with reason "error".
    num_cached_tokens, prompt_logprobs: on the sequence's first output only.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: list[TokenLogprobs] | None = None
    num_cached_tokens: int | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    num_preemptions: int = 0
    error: str | None = None
    queue_s: float | None = None
    """Seconds between the engine's receiving and first scheduling it; on its first output only."""


class EngineStats(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot of the engine, sent with each step and when it falls idle.

    Counters run from the start; `prefix_cache_*` count tokens.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0
    num_steps: int = 0
    num_scheduled_tokens: int = 0
    """Tokens computed in the last step."""
    num_preemptions: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    forward_s: float = 0.0
    """Seconds spent in the model's forward pass, summed over all steps."""
    run_s: float = 0.0
    """Seconds spent in the runner (inputs, forward, sampling), summed over all steps."""
    step_s: float = 0.0
    """Seconds spent in whole steps, summed over all steps."""
    num_timeouts: int = 0
    """Sequences that missed a deadline."""


class StepBegins(msgspec.Struct, frozen=True, tag=True):
    """A step has begun that schedules sequences for the first time, or may take a while.

    started: those sequences. If the engine dies in this step, they were in it.
    """

    num_tokens: int
    started: list[str] = []


class StepOutput(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Everything one step brought.

    started: the sequences that were scheduled for the first time.
    queue: those that wait, first the one that goes next; sent now and then, else None.
    """

    outputs: list[TokenOutput]
    stats: EngineStats
    started: list[str] = []
    queue: list[str] | None = None


class CallResult(msgspec.Struct, frozen=True, tag=True):
    """The answer to a `Call`: a value, or the error's message."""

    call_id: int
    value: bool | int | float | str | None = None
    error: str | None = None


ToEngine = Start | AddRequest | Abort | SetTenants | Call | Shutdown
FromEngine = Phase | Ready | StartFailed | StepBegins | StepOutput | CallResult
