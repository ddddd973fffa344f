"""AsyncLLMEngine: submit a request, iterate its outputs. The public face of the online engine.

It lives in the front-end process, on one event loop, and owns the promise made to each caller:
whatever happens, a request ends exactly once, with an output that says `finished` or with an
exception. The engine process owns only compute.

    generate() ── check, tokenize ──> AddRequest ──socket──> engine process
        ^                                                        │ one StepOutput a step
        └── RequestState.take() <── RequestState.apply() <───────┘

Cancelling the consumer is the abort path: the first thing `generate`'s clean-up does is to drop
the request here, synchronously, and to tell the engine.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any

from wheelpit.config import EngineConfig
from wheelpit.engine.arg_utils import AsyncEngineArgs, EngineArgs
from wheelpit.engine.engine_link import EngineLink
from wheelpit.engine.input_processor import InputProcessor, ParsedPrompt, parse_prompt
from wheelpit.engine.messages import Ready
from wheelpit.engine.process import WORKER, EngineProcess
from wheelpit.engine.request_book import RequestBook
from wheelpit.engine.request_state import RequestOutputCollector, RequestState
from wheelpit.engine.served_model import ServedModel, load_model_config, load_served_model
from wheelpit.engine.stats import (
    FrontEndStats,
    LoggingStatLogger,
    StatLogger,
)
from wheelpit.errors import EngineDeadError, EngineGenerateError, WheelpitError
from wheelpit.request import PromptType, RequestOutput, SamplingParams
from wheelpit.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

PhaseCallback = Callable[[str, float], None]


class AsyncLLMEngine:
    """The online engine. Build it with `from_engine_args`; use it from one event loop at a time.

    All state is written by the event loop's thread only.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: ServedModel,
        process: EngineProcess,
        *,
        log_stats: bool = True,
        log_requests: bool = False,
        stat_loggers: Sequence[StatLogger] = (),
    ) -> None:
        """Take over a process that was told to start. Call `wait_until_ready` before use."""
        self.config = config
        self.model_config = model
        self.log_stats = log_stats
        self.log_requests = log_requests
        self._inputs = InputProcessor(model, config.model.seed, capacity_tokens=2**63)
        watchers = [LoggingStatLogger(time.monotonic)] if log_stats else []
        self._book = RequestBook(process.channel.send, time.monotonic, [*stat_loggers, *watchers])
        self._link = EngineLink(process, self._book)
        self._is_paused = False
        self._resumed = asyncio.Event()

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
        folder, hf = load_model_config(engine_args)
        config = engine_args.create_engine_config(str(folder), hf.max_position_embeddings)
        process = EngineProcess(worker)
        try:
            process.start(config)
            model = load_served_model(engine_args, folder, hf, config.model.max_model_len)
            return cls(
                config,
                model,
                process,
                log_stats=not engine_args.disable_log_stats,
                log_requests=isinstance(engine_args, AsyncEngineArgs)
                and engine_args.enable_log_requests,
                stat_loggers=stat_loggers,
            )
        except BaseException:
            process.stop()
            raise

    def wait_until_ready(self, on_phase: PhaseCallback = lambda name, seconds: None) -> None:
        """Block until the model is loaded; on_phase hears of each part of it with its seconds."""
        if self._link.ready is not None:
            return
        ready = self._link.wait_until_ready(on_phase)
        capacity = ready.num_blocks * ready.block_size
        self._inputs = InputProcessor(self.model_config, self.config.model.seed, capacity)
        log.info(
            "serving %s: %s on %s, KV cache of %d tokens, %d sequences at a time, context %d",
            self.model_config.name,
            ready.dtype,
            ready.device,
            capacity,
            ready.max_num_seqs,
            self.config.model.max_model_len,
        )

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
    ) -> AsyncGenerator[RequestOutput, None]:
        """Run one request and yield its outputs; nothing happens before the first `__anext__`.

        A yield is not a token: what a slow consumer has not read is merged. The last output has
        `finished` set. Leaving the loop or cancelling the task aborts the request.

        arrival_time: seconds since the epoch, if the request came before this call; latencies
        count from there.

        Raises ValidationError (a ValueError) for a bad prompt or parameter, EngineDeadError when
        the engine process is gone, RuntimeError on a second event loop, EngineGenerateError for
        anything unforeseen.
        """
        self._connect()
        state: RequestState | None = None
        try:
            state = await self._submit(
                prompt,
                sampling_params,
                request_id,
                prompt_text=prompt_text,
                priority=priority,
                arrival_time=arrival_time,
                tokenization_kwargs=tokenization_kwargs,
                unsupported={"lora_request": lora_request},
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
    ) -> RequestOutputCollector:
        """Submit a request and return a handle to collect its outputs from."""
        state = await self._submit(
            prompt,
            params,
            request_id,
            prompt_text=prompt_text,
            priority=priority,
            arrival_time=arrival_time,
            tokenization_kwargs=tokenization_kwargs,
            unsupported={"lora_request": lora_request},
        )
        return RequestOutputCollector(state, self._book.abort)

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        """End every request of this id (or these ids), wherever it is; unknown ids are ignored.

        Its `generate` yields one last output with finish_reason "abort" and all tokens so far.
        internal: the ids are sequence ids of the engine (`RequestOutputCollector.request_id`).
        """
        wanted = {request_id} if isinstance(request_id, str) else set(request_id)
        self._book.abort_matching(
            lambda state: (
                state.request_id in wanted
                if not internal
                else any(completion.sequence_id in wanted for completion in state.completions)
            )
        )

    async def pause_generation(
        self,
        *,
        mode: str = "abort",
        wait_for_inflight_requests: bool | None = None,
        clear_cache: bool = True,
    ) -> None:
        """Hold new requests back until `resume_generation`.

        mode: "abort" ends what is in flight, "wait" lets it finish first. Idempotent.
        """
        if wait_for_inflight_requests:
            mode = "wait"
        if mode not in ("abort", "wait"):
            raise ValueError(f"mode is {mode!r}, must be 'abort' or 'wait'")
        if not self._is_paused:
            self._is_paused = True
            self._resumed.clear()
        in_flight = self._book.requests
        if mode == "abort":
            for state in in_flight:
                self._book.abort(state)
        for state in in_flight:
            await state.wait_until_finished()
        if clear_cache:
            await self.reset_prefix_cache()

    async def resume_generation(self) -> None:
        """Let the held-back requests go; does nothing when not paused."""
        self._is_paused = False
        self._resumed.set()

    async def is_paused(self) -> bool:
        return self._is_paused

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
        """Raise EngineDeadError if the engine process is gone."""
        self._link.check()

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
    def engine_pid(self) -> int:
        """The engine process's id, for operators and fault tests."""
        return self._link.pid

    def stats(self) -> FrontEndStats:
        """A snapshot of queues, cache and totals."""
        return self._book.stats()

    def has_unfinished_requests(self) -> bool:
        return len(self._book) > 0

    def add_stat_logger(self, logger: StatLogger) -> None:
        """Let a watcher hear of every step and every finished request from now on."""
        self._book.add_stat_logger(logger)

    async def do_log_stats(self) -> None:
        """Write the current state to the log."""
        stats = self.stats()
        engine = stats.engine
        log.info(
            "running %d, waiting %d, KV cache %.1f %%, %d requests finished",
            engine.num_running,
            engine.num_waiting,
            100 * engine.kv_cache_usage,
            stats.num_finished,
        )

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
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        prompt_text: str | None,
        priority: int,
        arrival_time: float | None,
        tokenization_kwargs: dict[str, Any] | None,
        unsupported: dict[str, object],
    ) -> RequestState:
        for name, value in unsupported.items():
            if value is not None:
                raise ValueError(f"{name} is not supported")
        self._connect()
        while self._is_paused:
            await self._resumed.wait()
        now = time.monotonic()
        if arrival_time is not None:
            now -= max(0.0, time.time() - arrival_time)
        params = self._inputs.check_params(sampling_params)
        parsed = parse_prompt(prompt)
        token_ids = await self._tokenize(parsed, tokenization_kwargs or {})
        self._inputs.check_token_ids(token_ids)
        # Tokenizing may have taken a while on another thread.
        self._link.check()
        messages = self._inputs.build(
            f"{request_id}-{secrets.token_hex(4)}",
            token_ids,
            params,
            priority=priority,
            arrival_s=now,
            cache_salt=parsed.cache_salt,
        )
        text = parsed.text if parsed.text is not None else prompt_text
        state = RequestState(
            request_id, text, messages, params, self.tokenizer, now, with_metrics=self.log_stats
        )
        self._book.add(state)
        if self.log_requests:
            log.info("request %s: %d prompt tokens, %s", request_id, len(token_ids), params)
        return state

    async def _tokenize(self, parsed: ParsedPrompt, options: dict[str, Any]) -> list[int]:
        if parsed.token_ids is not None:
            return parsed.token_ids
        assert parsed.text is not None
        unknown = set(options) - {"add_special_tokens"}
        if unknown:
            raise ValueError(f"tokenization_kwargs {sorted(unknown)} are not supported")
        self._inputs.check_text(parsed.text)
        assert self.tokenizer is not None
        return await self.tokenizer.encode_async(
            parsed.text, add_special_tokens=options.get("add_special_tokens", True)
        )

    def _connect(self) -> None:
        """Make sure that the engine lives and that the running loop serves it."""
        self._link.check()
        if self._link.attach():
            # An Event belongs to the loop that first waited on it.
            self._resumed = asyncio.Event()


AsyncLLM = AsyncLLMEngine
