"""Every request in flight, and what each step of the engine means for it.

The front end's half of the promise, without sockets or event loops: `AsyncLLMEngine` gives it a
way to send to the engine process, `LLM` one that calls the core. A request is in the book from
`add` until it ends, once: by its last token, an abort, a fault, or the engine's death.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from wheelpit.engine.messages import Abort, AddRequest, EngineStats, StepOutput, TokenOutput
from wheelpit.engine.request_state import CompletionState, RequestState
from wheelpit.engine.stats import FrontEndStats, StatLogger, StepRecord
from wheelpit.errors import EngineGenerateError

log = logging.getLogger(__name__)


class RequestBook:
    """The requests of one engine. Written only by the engine's owner (a loop's thread, or LLM)."""

    def __init__(
        self,
        send: Callable[[AddRequest | Abort], None],
        clock: Callable[[], float],
        stat_loggers: Sequence[StatLogger] = (),
    ) -> None:
        """send: passes a message to the engine; must not block."""
        self._send = send
        self._clock = clock
        self._stat_loggers = list(stat_loggers)
        self._requests: dict[RequestState, None] = {}
        self._sequences: dict[str, tuple[RequestState, CompletionState]] = {}
        self._engine_stats = EngineStats()
        self._num_finished = 0
        self._num_prompt_tokens = 0
        self._num_generation_tokens = 0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def requests(self) -> list[RequestState]:
        """Those in flight, oldest first; a copy."""
        return list(self._requests)

    def add_stat_logger(self, logger: StatLogger) -> None:
        self._stat_loggers.append(logger)

    def stats(self) -> FrontEndStats:
        return FrontEndStats(
            num_requests=len(self._requests),
            engine=self._engine_stats,
            num_finished=self._num_finished,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generation_tokens=self._num_generation_tokens,
        )

    def add(self, state: RequestState) -> None:
        """Enter a request and send its sequences to the engine."""
        self._requests[state] = None
        for completion, message in zip(state.completions, state.messages, strict=True):
            self._sequences[completion.sequence_id] = (state, completion)
            self._send(message)

    def abort(self, state: RequestState) -> None:
        """End a request with "abort", keeping its tokens. Nothing happens if it has ended."""
        if state not in self._requests:
            return
        self._forget(state, tell_engine=True)
        state.finish("abort")
        self._report(state)

    def abort_matching(self, is_wanted: Callable[[RequestState], bool]) -> None:
        """Abort every request for which `is_wanted`."""
        for state in self.requests:
            if is_wanted(state):
                self.abort(state)

    def fail_all(self, make_error: Callable[[], BaseException]) -> None:
        """End every request with an exception of its own: the engine is gone."""
        for state in self.requests:
            self._forget(state, tell_engine=False)
            state.fail(make_error())
            self._report(state)

    def discard(self, states: Iterable[RequestState]) -> None:
        """Drop requests that nobody can wait for any more, and tell the engine."""
        for state in states:
            self._forget(state, tell_engine=True)
            self._report(state)

    def on_step(self, step: StepOutput) -> None:
        """Hand out one step's tokens; one request's failure here is that request's alone."""
        now = self._clock()
        self._engine_stats = step.stats
        record = StepRecord(step.stats)
        aborts: list[str] = []
        for output in step.outputs:
            known = self._sequences.get(output.request_id)
            if known is None:
                continue
            state, completion = known
            try:
                if self._apply(state, completion, output, now, record):
                    aborts.append(completion.sequence_id)
            except Exception as error:
                # Per-request fault boundary: a detokenizer's fault, say.
                log.exception("request %s failed in the front end", state.request_id)
                self._fail(state, error)
        if aborts:
            self._send(Abort(aborts))
        self._num_prompt_tokens += record.num_prompt_tokens
        self._num_generation_tokens += record.num_generation_tokens
        self._tell(lambda logger: logger.on_step(record))

    def _apply(
        self,
        state: RequestState,
        completion: CompletionState,
        output: TokenOutput,
        now: float,
        record: StepRecord,
    ) -> bool:
        """Add one sequence's news to its request; True if the engine must abort the sequence."""
        if output.token_ids:
            record.num_generation_tokens += len(output.token_ids)
            if completion.last_token_s is not None:
                record.itls_s.append(now - completion.last_token_s)
            elif state.metrics.first_token_ts == 0.0:
                record.ttfts_s.append(now - state.metrics.queued_ts)
                record.num_prompt_tokens += len(state.prompt_token_ids)
                record.num_cached_tokens += output.num_cached_tokens or 0
        if output.error is not None:
            log.warning("request %s ended with an error: %s", state.request_id, output.error)
        must_abort = state.apply(completion, output, now)
        if completion.finish_reason is not None:
            self._sequences.pop(completion.sequence_id, None)
        if state.is_finished:
            self._requests.pop(state, None)
            self._report(state)
        return must_abort

    def _fail(self, state: RequestState, error: Exception) -> None:
        wrapped = EngineGenerateError(
            f"generating failed for request {state.request_id!r}: {type(error).__name__}: {error}"
        )
        wrapped.__cause__ = error
        self._forget(state, tell_engine=True)
        state.fail(wrapped)
        self._report(state)

    def _forget(self, state: RequestState, *, tell_engine: bool) -> None:
        """Remove a request from the book; late outputs for it will find nothing."""
        self._requests.pop(state, None)
        unfinished = []
        for completion in state.completions:
            was_known = self._sequences.pop(completion.sequence_id, None)
            if was_known is not None and completion.finish_reason is None:
                unfinished.append(completion.sequence_id)
        if tell_engine and unfinished:
            self._send(Abort(unfinished))

    def _report(self, state: RequestState) -> None:
        self._num_finished += 1
        record = state.describe(self._clock())
        self._tell(lambda logger: logger.on_request_finished(record))

    def _tell(self, message: Callable[[StatLogger], None]) -> None:
        """Pass something on to every watcher; one that raises is dropped, requests go on."""
        for logger in list(self._stat_loggers):
            try:
                message(logger)
            except Exception:
                log.exception("stat logger %r failed and is removed", logger)
                self._stat_loggers.remove(logger)
