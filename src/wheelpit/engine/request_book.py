"""Every request in flight, and what each step of the engine means for it.

The front end's half of the promise, without sockets or event loops: `AsyncLLMEngine` gives it a
way to send to the engine process, `LLM` one that calls the core. A request is in the book from
`add` until it ends, once: by its last token, an abort, a deadline, a fault, or the engine's death.
Whichever it is, `_close` gives back its place and tells the watchers.

While the book is on hold (`hold`), what is added stays here instead of going to the engine. While
there is no engine (`close_engine`), nothing goes anywhere; whoever was sent to the last one is sent
to the next, as its prompt and the tokens so far.

The engine process ends what has missed a deadline before its next step. If that step is long, or
hangs, the book does it, `OVERDUE_S` later: nobody waits for a step to hear that time is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from wheelpit.engine.admission import Admission
from wheelpit.engine.messages import Abort, AddRequest, EngineStats, StepOutput, TokenOutput
from wheelpit.engine.queue_places import QueuePlaces
from wheelpit.engine.request_state import CompletionState, RequestState, Timer
from wheelpit.engine.stats import (
    FinishedRequest,
    FrontEndStats,
    StatLogger,
    StepRecord,
    Watchers,
)
from wheelpit.errors import EngineGenerateError
from wheelpit.request import RequestProgress

log = logging.getLogger(__name__)

OVERDUE_S = 0.25
"""How long after a deadline the front end waits for the engine to end the request."""

SHORTEST_TIMER_S = 1e-3
"""A timer that rings a rounding error early is set again for so long, not for nothing."""

Send = Callable[[AddRequest | Abort], None]

SetTimer = Callable[[float, Callable[[], None]], Timer]
"""(seconds, what to call then). Like `loop.call_later`."""


class RequestBook:
    """The requests of one engine. Written only by the engine's owner (a loop's thread, or LLM)."""

    def __init__(
        self,
        admission: Admission,
        clock: Callable[[], float],
        stat_loggers: Sequence[StatLogger] = (),
        set_timer: SetTimer | None = None,
    ) -> None:
        """admission: who gave the requests their reservations; hears of each step.
        set_timer: for deadlines; without one, they are the engine's alone.
        """
        self._send: Send = _drop
        self._admission = admission
        self._clock = clock
        self.watchers = Watchers(stat_loggers)
        self._set_timer = set_timer
        self._is_on_hold = False
        self._is_open = False
        self._only: RequestState | None = None
        self._requests: dict[RequestState, None] = {}
        self._by_id: dict[str, dict[RequestState, None]] = {}
        self._sequences: dict[str, tuple[RequestState, CompletionState]] = {}
        self._places = QueuePlaces()
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

    @property
    def is_on_hold(self) -> bool:
        return self._is_on_hold

    def of_id(self, request_id: str) -> list[RequestState]:
        """The requests that a caller gave this id, oldest first; a copy."""
        return list(self._by_id.get(request_id, ()))

    def progress(self, request_id: str) -> RequestProgress | None:
        """How far the oldest request of this id has got; None if there is none."""
        state = next(iter(self._by_id.get(request_id, ())), None)
        if state is None:
            return None
        if any(completion.was_scheduled for completion in state.completions):
            return RequestProgress(state="running")
        known = [self._places.num_ahead(each.sequence_id) for each in state.completions]
        num_ahead = min((number for number in known if number is not None), default=None)
        if num_ahead is None:
            num_ahead = self._admission.num_ahead(state.reservation)
        eta_s = None
        if not self._is_on_hold:
            eta_s = self._admission.wait_s(state.reservation, num_ahead, self._clock())
        return RequestProgress(state="queued", position=num_ahead + 1, eta_s=eta_s)

    def stats(self) -> FrontEndStats:
        return FrontEndStats(
            num_requests=len(self._requests),
            num_queued=self._admission.num_queued,
            num_queued_tokens=self._admission.num_queued_tokens,
            drain_rate=self._admission.drain_rate(self._clock()),
            engine=self._engine_stats,
            num_finished=self._num_finished,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generation_tokens=self._num_generation_tokens,
        )

    # --- in and out

    def add(self, state: RequestState) -> None:
        """Enter a request, and send its sequences to the engine unless the book is on hold."""
        self._requests[state] = None
        self._by_id.setdefault(state.request_id, {})[state] = None
        for completion in state.completions:
            self._sequences[completion.sequence_id] = (state, completion)
        if state.reservation.is_aborted:
            self.abort(state)
            return
        self._check_deadlines(state)
        if state in self._requests and self._may_send(state):
            self._dispatch(state)

    def hold(self) -> list[RequestState]:
        """Keep what is added from now on; returns those that the engine has already."""
        self._is_on_hold = True
        return [state for state in self._requests if state.was_sent]

    def resume(self) -> None:
        """Send what was kept, in the order in which it came."""
        self._is_on_hold = False
        self._send_kept()

    # --- engines come and go

    @property
    def sent_since_s(self) -> float | None:
        """Since when the engine has had something to work on; None if it has nothing.

        That is when it was sent the oldest request that it has. Found at once, unless many older
        ones are kept here.
        """
        sent = (state.sent_s for state in self._requests if state.sent_s is not None)
        return next(sent, None)

    def has_ended(self, state: RequestState) -> bool:
        return state not in self._requests

    def open_engine(self, send: Send, only: RequestState | None = None) -> None:
        """There is an engine: send it everything, or for now this request alone.

        send: passes a message to it; must not block. What it has of others is taken back.
        """
        self._send = send
        self._is_open = True
        self._only = only
        if only is not None:
            for state in self._requests:
                if state is not only and state.sent_s is not None:
                    self._withdraw(state)
        self._send_kept()

    def close_engine(self, *, has_failed: bool) -> list[RequestState]:
        """The engine is gone: keep everything for the next; returns those that were running.

        has_failed: it was not ended on purpose, and whoever was running may be why.
        """
        self._send = _drop
        self._is_open = False
        self._only = None
        self._places.set_order(())
        running = []
        for state in self._requests:
            if state.sent_s is not None and state.recall(has_failed=has_failed):
                running.append(state)
        self._clear_gauges()
        return running

    def fail(self, state: RequestState, message: str) -> None:
        """End a request with "error" and all tokens so far."""
        self._forget(state, tell_engine=True)
        for completion in state.completions:
            if completion.finish_reason is None:
                completion.error = message
        state.finish("error")
        self._close(state)

    def abort(self, state: RequestState) -> None:
        """End a request with "abort", keeping its tokens. Nothing happens if it has ended."""
        if state not in self._requests:
            return
        self._forget(state, tell_engine=True)
        try:
            state.finish("abort")
        except Exception as error:
            log.exception("request %s failed in the front end", state.request_id)
            state.fail(_wrap(state, error))
        self._close(state)

    def abort_sequence(self, sequence_id: str) -> None:
        """End the request that has this sequence; unknown ids are ignored."""
        known = self._sequences.get(sequence_id)
        if known is not None:
            self.abort(known[0])

    def abort_all(self) -> None:
        for state in self.requests:
            self.abort(state)

    def fail_all(self, make_error: Callable[[], BaseException]) -> None:
        """End every request with an exception of its own: the engine is gone."""
        for state in self.requests:
            self._forget(state, tell_engine=False)
            state.fail(make_error())
            self._close(state)
        self._clear_gauges()

    def discard(self, states: Iterable[RequestState]) -> None:
        """Drop requests whose event loop was closed: nobody can wait for them any more."""
        for state in states:
            self._forget(state, tell_engine=True)
            for completion in state.completions:
                completion.finish("abort")
            # It was the loop's, and is gone with it.
            state.timer = None
            self._close(state)

    # --- news

    def on_step_begins(self, sequence_ids: list[str]) -> None:
        """The engine runs these now, for the first time.

        They have started, though the step may take long, or never end: a timeout of the queue has
        nothing to say of them any more.
        """
        now = self._clock()
        for sequence_id in sequence_ids:
            known = self._sequences.get(sequence_id)
            if known is not None:
                known[1].is_running = True
                self._start(sequence_id, now)

    def on_step(self, step: StepOutput) -> None:
        """Hand out one step's tokens; one request's failure here is that request's alone."""
        now = self._clock()
        self._engine_stats = step.stats
        for sequence_id in step.started:
            self._start(sequence_id, now)
        self._admission.on_step(
            step.stats.num_waiting, len(step.started), step.stats.kv_cache_usage
        )
        if step.queue is not None:
            self._places.set_order(known for known in step.queue if known in self._sequences)
        elif not step.stats.num_waiting:
            self._places.set_order(())
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
        self.watchers.on_step(record)

    def report(self, record: FinishedRequest) -> None:
        """Count a request that has ended, and tell the watchers; once for each."""
        self._num_finished += 1
        self.watchers.on_request_finished(record)

    # --- inside

    def _clear_gauges(self) -> None:
        """The engine process holds nothing any more, and will not say so."""
        self._engine_stats = msgspec.structs.replace(
            self._engine_stats, num_running=0, num_waiting=0, kv_cache_usage=0.0
        )

    def _may_send(self, state: RequestState) -> bool:
        is_held = self._is_on_hold and not state.was_sent
        return self._is_open and not is_held and self._only in (None, state)

    def _send_kept(self) -> None:
        for state in self.requests:
            if state.sent_s is not None:
                continue
            self._check_deadlines(state)
            if state in self._requests and self._may_send(state):
                self._dispatch(state)

    def _dispatch(self, state: RequestState) -> None:
        try:
            for message in state.send(self._clock()):
                self._send(message)
        except Exception as error:
            # What the socket's encoder does not know (in `extra_args`, say).
            self._fail(state, error)

    def _withdraw(self, state: RequestState) -> None:
        """Take a request back from the engine, to send it again later.

        What the engine says of it until it hears of that is still news: it comes before anything
        that the engine says later, and so before the request is sent again.
        """
        self._send(Abort(state.withdraw()))

    def _start(self, sequence_id: str, now: float) -> None:
        known = self._sequences.get(sequence_id)
        if known is not None:
            state, completion = known
            completion.was_scheduled = True
            state.reservation.start(completion.index, now)
            self._places.remove(sequence_id)

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
            state.reservation.charge(len(output.token_ids), now)
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
            self._end(state, completion, now)
        return must_abort

    def _end(self, state: RequestState, completion: CompletionState, now: float) -> None:
        """One completion has ended; so has its request, if it was the last one."""
        self._sequences.pop(completion.sequence_id, None)
        self._places.remove(completion.sequence_id)
        state.reservation.end(completion.index, now)
        if state.is_finished and state in self._requests:
            self._forget(state, tell_engine=False)
            self._close(state)

    def _check_deadlines(self, state: RequestState) -> None:
        """End what is over time, and set the timer to the next of its deadlines, if any."""
        moments = state.reservation.deadlines.moments
        if not moments:
            return
        now = self._clock()
        late_s = 0.0 if state.sent_s is None else OVERDUE_S
        over_s = now - late_s
        try:
            ended = state.expire(over_s)
        except Exception as error:
            log.exception("request %s failed in the front end", state.request_id)
            self._fail(state, error)
            return
        if ended and state.sent_s is not None:
            self._send(Abort([completion.sequence_id for completion in ended]))
        for completion in ended:
            self._end(state, completion, now)
        # Compared as `expire` does: what rounds to "now" here and to "not yet" there would be
        # forgotten.
        coming = [moment - over_s for moment in moments if moment > over_s]
        if coming and state in self._requests and self._set_timer is not None:
            delay_s = max(min(coming), SHORTEST_TIMER_S)
            if state.timer is not None:
                state.timer.cancel()
            state.timer = self._set_timer(delay_s, lambda: self._check_deadlines(state))

    def _fail(self, state: RequestState, error: Exception) -> None:
        assert state in self._requests, f"{state.request_id} has ended"
        self._forget(state, tell_engine=True)
        state.fail(_wrap(state, error))
        self._close(state)

    def _forget(self, state: RequestState, *, tell_engine: bool) -> None:
        """Remove a request from the book; late outputs for it will find nothing."""
        self._requests.pop(state, None)
        namesakes = self._by_id.get(state.request_id, {})
        namesakes.pop(state, None)
        if not namesakes:
            self._by_id.pop(state.request_id, None)
        unfinished = []
        for completion in state.completions:
            self._places.remove(completion.sequence_id)
            was_known = self._sequences.pop(completion.sequence_id, None)
            if was_known is not None and completion.finish_reason is None:
                unfinished.append(completion.sequence_id)
        if tell_engine and unfinished and state.sent_s is not None:
            self._send(Abort(unfinished))

    def _close(self, state: RequestState) -> None:
        """The request has ended: give back its place and tell the watchers."""
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        now = self._clock()
        state.reservation.release(now)
        self.report(state.describe(now))


def _drop(message: AddRequest | Abort) -> None:
    """There is no engine to tell."""


def _wrap(state: RequestState, error: Exception) -> EngineGenerateError:
    wrapped = EngineGenerateError(
        f"generating failed for request {state.request_id!r}: {type(error).__name__}: {error}"
    )
    wrapped.__cause__ = error
    return wrapped
