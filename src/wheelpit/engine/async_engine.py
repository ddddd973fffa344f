"""AsyncLLMEngine: submit a request, iterate its outputs. The public face of the online engine.

It lives in the front-end process, on one event loop, and owns the promise made to each caller:
whatever happens, a request ends exactly once, with an output that says `finished` or with an
exception. The engine process owns only compute.

    generate() ── admit, tokenize ──> AddRequest ──socket──> engine process
        ^                                                        │ one StepOutput a step
        └── RequestState.take() <── RequestState.apply() <───────┘

Cancelling the consumer is the abort path: the first thing `generate`'s clean-up does is to drop
the request here, synchronously, and to tell the engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any

from wheelpit.config import EngineConfig
from wheelpit.engine.admission import Admission, Limits, Reservation
from wheelpit.engine.arg_utils import EngineArgs
from wheelpit.engine.arrival import Arrival, Submission, Timeouts
from wheelpit.engine.engine_link import EngineLink, call_later
from wheelpit.engine.intake import Intake
from wheelpit.engine.launch import Launched, launch_process
from wheelpit.engine.messages import Ready
from wheelpit.engine.process import WORKER
from wheelpit.engine.progress import Unprogressed, oldest_unprogressed
from wheelpit.engine.request_book import RequestBook
from wheelpit.engine.request_state import RequestOutputCollector, RequestState
from wheelpit.engine.served_model import ServedModel
from wheelpit.engine.stats import FrontEndStats, LoggingStatLogger, StatLogger
from wheelpit.engine.supervisor import EngineHealth
from wheelpit.errors import EngineDeadError, EngineGenerateError, WheelpitError
from wheelpit.request import PromptType, RequestOutput, RequestProgress, SamplingParams
from wheelpit.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

PhaseCallback = Callable[[str, float], None]


class AsyncLLMEngine:
    """The online engine. Build it with `from_engine_args`; use it from one event loop at a time.

    All state is written by the event loop's thread only.
    """

    def __init__(self, *, launched: Launched, stat_loggers: Sequence[StatLogger] = ()) -> None:
        """Take over a process that was told to start. Call `wait_until_ready` before use."""
        self.config = launched.config
        self.model_config = launched.model
        self.tenant_keys = launched.tenant_keys
        self.log_stats = launched.log_stats
        self.log_requests = launched.log_requests
        clock = time.monotonic
        watchers = [LoggingStatLogger(clock)] if launched.log_stats else []
        admission = Admission(launched.limits, launched.config.scheduler)
        self._book = RequestBook(admission, clock, [*stat_loggers, *watchers], call_later)
        self._link = EngineLink(launched.process, launched.engines, self._book, launched.restarts)
        self._intake = Intake(launched, admission, self._link, self._book.report, clock)

    # --- starting and stopping

    @classmethod
    def from_engine_args(
        cls,
        engine_args: EngineArgs,
        start_engine_loop: bool = True,
        usage_context: Any = None,
        stat_loggers: Sequence[StatLogger] | None = None,
    ) -> AsyncLLMEngine:
        """Start an engine and block until its model is loaded.

        Works with and without a running event loop. Raises ConfigError, ModelLoadError or
        EngineStartError. start_engine_loop and usage_context are vLLM's and have no effect.
        """
        engine = cls.launch(engine_args, stat_loggers=stat_loggers or ())
        engine.wait_until_ready()
        return engine

    @classmethod
    def launch(
        cls,
        engine_args: EngineArgs,
        *,
        stat_loggers: Sequence[StatLogger] = (),
        worker: Sequence[str] = WORKER,
    ) -> AsyncLLMEngine:
        """Start the engine process and return while it loads; then call `wait_until_ready`.

        worker: what Python runs as the engine process; another one serves tests and benchmarks.
        """
        launched = launch_process(engine_args, worker)
        try:
            return cls(launched=launched, stat_loggers=stat_loggers)
        except BaseException:
            launched.process.stop()
            launched.engines.close()
            raise

    def wait_until_ready(self, on_phase: PhaseCallback = lambda name, seconds: None) -> None:
        """Block until the model is loaded; on_phase hears of each part of it with its seconds."""
        if self._link.ready is not None:
            return
        ready = self._link.wait_until_ready(on_phase)
        capacity = ready.num_blocks * ready.block_size
        self._intake.on_ready(capacity)
        log.info(
            "serving %s: %s on %s, KV cache of %d tokens, %d sequences at a time, context %d",
            self.model_config.name,
            ready.dtype,
            ready.device,
            capacity,
            ready.max_num_seqs,
            self.config.model.max_model_len,
        )

    def attach(self) -> None:
        """Watch over the engine from the running loop, before there is any request. Idempotent.

        RuntimeError while another loop does.
        """
        self._link.attach()

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop the engine process; every pending `generate` raises EngineDeadError. Idempotent.

        Blocks until the process is gone: at most about two seconds.
        """
        self._link.close()

    def __del__(self) -> None:
        # Also runs on an engine whose constructor raised.
        if getattr(self, "_link", None) is not None:
            self._link.close()

    # --- requests

    async def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        prompt_text: str | None = None,
        lora_request: None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
        arrival_time: float | None = None,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        ttft_timeout: float | None = None,
        tenant: str = "",
        reservation: Reservation | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Run one request and yield its outputs; nothing happens before the first `__anext__`.

        A yield is not a token: what a slow consumer has not read is merged. The last output has
        `finished` set. Leaving the loop or cancelling the task aborts the request.

        arrival_time: seconds since the epoch, if the request came before this call; latencies
        and timeouts count from there.
        timeout, queue_timeout, ttft_timeout: seconds from arrival to the end, to the start, to the
        first token; None is the engine's default. A request that misses one ends with one last
        output, finish_reason "abort", its name as stop_reason, and all tokens so far.
        tenant: whose request it is, for the fair policy and the tenants' limits.
        reservation: what `reserve` returned for this request; the five above and priority were
        said there and are left out here.

        Raises ValidationError (a ValueError) for a bad prompt or parameter, OverloadedError when
        the engine's limits allow no more, EngineDeadError when the engine process is gone,
        RuntimeError on a second event loop, EngineGenerateError for anything unforeseen.
        """
        self._connect(reservation)
        state: RequestState | None = None
        try:
            timeouts = Timeouts(timeout, queue_timeout, ttft_timeout)
            arrival = Arrival(request_id, tenant, priority, arrival_time, timeouts)
            options = tokenization_kwargs or {}
            state = await self._submit(
                Submission(arrival, prompt, sampling_params, prompt_text, options, lora_request),
                reservation,
            )
            is_finished = False
            while not is_finished:
                output = state.take()
                if output is None:
                    await state.wait()
                    continue
                is_finished = output.finished
                yield output
        except (WheelpitError, ValueError):
            raise
        except Exception as error:
            raise EngineGenerateError(
                f"generating failed for request {request_id!r}: {type(error).__name__}: {error}"
            ) from error
        finally:
            if state is not None:
                self._book.abort(state)

    async def add_request(
        self,
        request_id: str,
        prompt: PromptType,
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        prompt_text: str | None = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        ttft_timeout: float | None = None,
        tenant: str = "",
        reservation: Reservation | None = None,
    ) -> RequestOutputCollector:
        """Submit a request and return a handle to collect its outputs from. See `generate`."""
        self._connect(reservation)
        timeouts = Timeouts(timeout, queue_timeout, ttft_timeout)
        arrival = Arrival(request_id, tenant, priority, arrival_time, timeouts)
        options = tokenization_kwargs or {}
        state = await self._submit(
            Submission(arrival, prompt, params, prompt_text, options, lora_request), reservation
        )
        return RequestOutputCollector(state, self._book.abort)

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        """End every request of this id (or these ids), wherever it is; unknown ids are ignored.

        Its `generate` yields one last output with finish_reason "abort" and all tokens so far.
        internal: the ids are sequence ids of the engine (`RequestOutputCollector.request_id`).
        """
        wanted = {request_id} if isinstance(request_id, str) else set(request_id)
        if internal:
            for sequence_id in wanted:
                self._book.abort_sequence(sequence_id)
            return
        self._intake.abort_pending(wanted)
        for wanted_id in wanted:
            for state in self._book.of_id(wanted_id):
                self._book.abort(state)

    def reserve(
        self,
        request_id: str,
        *,
        num_tokens: int,
        n: int = 1,
        priority: int = 0,
        tenant: str = "",
        timeout: float | None = None,
        queue_timeout: float | None = None,
        ttft_timeout: float | None = None,
        arrival_time: float | None = None,
    ) -> Reservation:
        """Admit a request the moment it arrives, before anything is spent on it.

        For servers, which tokenize themselves. Give what it returns to `generate` or `release`.
        num_tokens: of the prompt; `estimate_tokens` guesses. n: as in its SamplingParams.
        Raises OverloadedError, ValidationError or EngineDeadError.
        """
        timeouts = Timeouts(timeout, queue_timeout, ttft_timeout)
        arrival = Arrival(request_id, tenant, priority, arrival_time, timeouts)
        (reservation,) = self.reserve_all(arrival, [(request_id, num_tokens)], n)
        return reservation

    def reserve_all(
        self, arrival: Arrival, places: Sequence[tuple[str, int]], n: int = 1
    ) -> list[Reservation]:
        """Admit a list of prompts as one request: each gets a place of its own, or none does.

        places: (request id, tokens) of each prompt. n: of each.
        """
        self._link.check()
        return self._intake.reserve(arrival, places, n)

    def release(self, reservation: Reservation, error: BaseException | None = None) -> None:
        """Give back a place that `generate` has not taken over, else do nothing. Idempotent.

        error: what went wrong, for the log and the metrics; None if its client left.
        """
        if not reservation.is_taken:
            self._intake.release(reservation, error)

    def progress(self, request_id: str) -> RequestProgress | None:
        """How far the oldest request of this id has got; None if there is none (any more)."""
        return self._book.progress(request_id)

    @property
    def limits(self) -> Limits:
        """What the engine takes on at present."""
        return self._intake.limits

    def update_limits(self, limits: Limits) -> None:
        """Make other limits hold from now on; what was admitted stays. Logs each change."""
        self._link.check()
        self._intake.update_limits(limits)

    async def pause_generation(
        self,
        *,
        mode: str = "abort",
        wait_for_inflight_requests: bool | None = None,
        clear_cache: bool = True,
    ) -> None:
        """Hold new requests back until `resume_generation`; their timeouts go on.

        mode: "abort" ends what is in flight, "wait" lets it finish first. Idempotent.
        """
        if wait_for_inflight_requests:
            mode = "wait"
        if mode not in ("abort", "wait"):
            raise ValueError(f"mode is {mode!r}, must be 'abort' or 'wait'")
        in_flight = self._book.hold()
        if mode == "abort":
            for state in in_flight:
                self._book.abort(state)
        for state in in_flight:
            await state.wait_until_finished()
        if clear_cache:
            await self.reset_prefix_cache()

    async def resume_generation(self) -> None:
        """Let the held-back requests go; does nothing when not paused."""
        self._book.resume()

    async def is_paused(self) -> bool:
        return self._book.is_on_hold

    # --- questions

    @property
    def is_running(self) -> bool:
        return not self.errored

    @property
    def is_stopped(self) -> bool:
        return self.errored

    @property
    def errored(self) -> bool:
        """True when no request can be served any more."""
        return self._link.is_dead

    @property
    def dead_error(self) -> EngineDeadError:
        """A fresh exception that says why the engine is gone."""
        return self._link.dead_error

    async def check_health(self) -> None:
        """Raise EngineDeadError if there will be no engine any more, or it hangs just now."""
        self._link.check()
        health = self._link.health()
        if health.is_stalled:
            raise EngineDeadError(f"no step was finished for {health.heartbeat_age_s:.1f} s")

    def health(self) -> EngineHealth:
        """How the engine process does; costs nothing, never raises."""
        return self._link.health()

    def oldest_unprogressed(self) -> Unprogressed | None:
        """The request that has waited longest for anything to happen to it; None if none waits."""
        return oldest_unprogressed(self._intake.pending, self._book.requests, time.monotonic())

    @property
    def is_full(self) -> bool:
        """Would the limits refuse a request that came now?"""
        return self._intake.is_full

    @property
    def is_admitting(self) -> bool:
        """False after `stop_admitting`."""
        return self._intake.is_open

    def stop_admitting(self, retry_after_s: float = 1.0) -> None:
        """Refuse new requests for good, with OverloadedError; those that are in go on."""
        self._intake.close(retry_after_s)

    def restart_engine(self, reason: str = "asked to") -> None:
        """Replace the engine process; to the requests it is a pause."""
        self._link.restart(reason)

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.model_config.tokenizer

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises ValueError if the engine was built without one."""
        if self.model_config.tokenizer is None:
            raise ValueError("this engine has no tokenizer (skip_tokenizer_init)")
        return self.model_config.tokenizer

    async def get_model_config(self) -> ServedModel:
        return self.model_config

    async def get_vllm_config(self) -> EngineConfig:
        return self.config

    @property
    def vllm_config(self) -> EngineConfig:
        return self.config

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    async def is_tracing_enabled(self) -> bool:
        return False

    @property
    def ready(self) -> Ready:
        """What the engine resolved at its start: dtype, device, cache size."""
        ready = self._link.ready
        assert ready is not None, "the engine is not ready yet"
        return ready

    @property
    def engine_pid(self) -> int | None:
        """The engine process's id, for operators and fault tests; None between two engines, and
        while one is just being made.
        """
        return self._link.pid

    def stats(self) -> FrontEndStats:
        """A snapshot of queues, cache and totals."""
        return self._book.stats()

    def has_unfinished_requests(self) -> bool:
        return len(self._book) > 0

    def add_stat_logger(self, logger: StatLogger) -> None:
        """Let a watcher hear of every step and every finished request from now on."""
        self._book.watchers.add(logger)

    async def do_log_stats(self) -> None:
        """Write the current state to the log."""
        self.stats().log()

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forget all cached prefixes; False if blocks are in use."""
        if reset_running_requests or reset_connector:
            raise NotImplementedError(
                "reset_prefix_cache supports neither reset_running_requests nor reset_connector"
            )
        return bool(await self._link.call("reset_prefix_cache"))

    # --- inside

    async def _submit(
        self, submission: Submission, reservation: Reservation | None
    ) -> RequestState:
        state = await self._intake.prepare(submission, reservation)
        self._book.add(state)
        if self.log_requests:
            log.info(
                "request %s: %d prompt tokens, %s",
                state.request_id,
                len(state.prompt_token_ids),
                state.params,
            )
        return state

    def _connect(self, reservation: Reservation | None) -> None:
        """Make sure that the engine lives and that the running loop serves it."""
        try:
            self._link.check()
            self._link.attach()
        except Exception as error:
            if reservation is not None:
                self.release(reservation, error)
            raise


AsyncLLM = AsyncLLMEngine
