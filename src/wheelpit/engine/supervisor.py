"""Keep an engine running: notice that it died or hangs, start another, and let requests go on.

    adopt ──> SERVING ── died, hangs ──> WAITING ── backoff ──> LOADING ── ready ──┐
                 ^  └──────────────── restart() ────────────────^   │              │
                 │                          ^────── died, late ─────┘              │
                 └─────────────────────────────────────────────────────────────────┘

    died too often, close() ──> DEAD

The requests are in the book all the while: to the callers a restart is a pause. When the next
engine is ready, each unfinished request is sent again as its prompt and the tokens that were
delivered. As the noise of a draw depends on nothing but (seed, position, token), it goes on with
the tokens that it would have had.

A crash may be a request's fault. Under suspicion is who was running in two crashes in a row without
a token in between; of several completions, each by itself. Suspects are sent one at a time, alone,
until they have a token, and so are past where the crash was; then everybody goes on. A suspect that
is alone when the engine dies ends with "error"; if something killed the engine from outside, it
gets one more chance.

An engine hangs if it has had work and finished no step for `stall_timeout_s`. Work is a request
that it was sent, or a call that it has not answered. It announces long steps (`StepBegins`), which
get time in proportion to their tokens. Where steps have been slow lately, the next gets time in
proportion to that, and after each engine that was taken for hung the next one gets twice as long: a
machine that is merely slow gets there, too. Loading has a limit of its own.

Nothing here does I/O, reads a clock or knows asyncio: a clock, timers and a way to launch are
arguments, so that simulations can run it through any order of events.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from wheelpit.engine.messages import (
    Abort,
    AddRequest,
    Call,
    CallResult,
    FromEngine,
    Phase,
    Ready,
    SetTenants,
    StartFailed,
    StepBegins,
    StepOutput,
)
from wheelpit.engine.request_book import RequestBook, SetTimer
from wheelpit.engine.request_state import RequestState, Timer
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.errors import EngineDeadError

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 10.0

MIN_LOADING_S = 60.0
"""An engine that loads has this long at least; else ten times what the first one took."""

LONG_STEP_SLACK = 5.0
"""A long step may take so many times what its tokens took in recent steps."""

SLOW_STEP_SLACK = 10.0
"""Any step may take so many times what steps have taken lately."""

STEP_GAIN = 0.2
"""Share of the newest step in what steps have taken lately."""

HEALTHY_STEPS = 20
"""After so many steps of an engine, those that died or hung before it are forgiven."""

MAX_PATIENCE = 32
"""How many times the stall timeout may be doubled, as a factor."""

UNKNOWN_TOKEN_S = 0.05
"""What a token is taken to cost before any step was seen."""


class EngineState(enum.Enum):
    """See the picture above."""

    SERVING = "serving"
    WAITING = "waiting"
    LOADING = "loading"
    DEAD = "dead"


class Engine(Protocol):
    """One engine process, or a simulated one."""

    def send(self, message: AddRequest | Abort | SetTenants | Call) -> None:
        """Pass a message on; must not block. Dropped if the engine is gone."""
        ...

    def connect(
        self, on_message: Callable[[FromEngine], None], on_end: Callable[[str, bool], None]
    ) -> None:
        """Deliver its messages from now on. on_end: told once how it ended, if `kill` did not do
        it, and whether somebody else killed it.
        """
        ...

    def kill(self) -> None:
        """End it at once and deliver nothing more. Idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHealth:
    """How the engine does.

    heartbeat_age_s: since it last said anything. is_stalled: it has work and has not finished a
    step in `stall_timeout_s`. num_restarts: of all time.
    """

    state: EngineState
    heartbeat_age_s: float
    is_stalled: bool
    num_restarts: int


class Supervisor:
    """The engines of one front end, one after the other. Written only in its thread."""

    def __init__(
        self,
        book: RequestBook,
        launch: Callable[[], Engine],
        clock: Callable[[], float],
        set_timer: SetTimer,
        settings: RestartSettings,
        on_dead: Callable[[EngineDeadError], None],
    ) -> None:
        """launch: starts an engine, which reports Ready or StartFailed. on_dead: told that there
        will be no other; the book's requests have ended by then.
        """
        self._book = book
        self._launch = launch
        self._clock = clock
        self._set_timer = set_timer
        self._settings = settings
        self._on_dead = on_dead
        self._engine: Engine | None = None
        self._state = EngineState.WAITING
        self._tenants: SetTenants | None = None
        self._calls: dict[int, tuple[Call, Callable[[CallResult], None]]] = {}
        self._called_s = 0.0
        self._ends: deque[float] = deque()
        self._num_restarts = 0
        self._suspects: list[RequestState] = []
        self._heard_s = clock()
        self._progressed_s = self._heard_s
        self._allowance_s = 0.0
        self._step_s = 0.0
        self._num_steps = 0
        self._patience = 1
        self._num_unhealthy = 0
        self._token_s = UNKNOWN_TOKEN_S
        self._run_s = 0.0
        self._loading_since_s = self._heard_s
        self._loading_limit_s = MIN_LOADING_S
        self._timer: Timer | None = None
        self._watch_due_s: float | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def engine(self) -> Engine | None:
        """The current one; None between two."""
        return self._engine

    @property
    def suspect(self) -> RequestState | None:
        """The request that runs alone, if one does."""
        return self._suspects[0] if self._suspects else None

    def health(self) -> EngineHealth:
        now = self._clock()
        return EngineHealth(
            state=self._state,
            heartbeat_age_s=now - self._heard_s,
            is_stalled=self._state is EngineState.SERVING and self._is_stalled(now),
            num_restarts=self._num_restarts,
        )

    # --- orders

    def adopt(self, engine: Engine, loading_s: float) -> None:
        """Take over the first engine, which is ready; loading_s: what that took."""
        self._loading_limit_s = max(MIN_LOADING_S, 10.0 * loading_s)
        self._engine = engine
        engine.connect(self._on_message, self._on_end)
        if self._engine is engine:
            self._serve()

    def resume_timers(self) -> None:
        """Set the timers anew, with a `set_timer` whose old timers will never fire."""
        self._timer = None
        if self._state is EngineState.WAITING and self._engine is None:
            self._timer = self._set_timer(0.0, self._load)
        elif self._state is not EngineState.DEAD:
            self._watch()

    def set_tenants(self, message: SetTenants) -> None:
        """Tell this engine and every later one."""
        self._tenants = message
        if self._state is EngineState.SERVING:
            self._engine_or_fail().send(message)

    def call(self, call: Call, on_result: Callable[[CallResult], None]) -> None:
        """Have the engine run a method; asked again of the next engine if this one dies."""
        if not self._calls:
            self._called_s = self._clock()
        self._calls[call.call_id] = (call, on_result)
        if self._state is EngineState.SERVING:
            self._engine_or_fail().send(call)

    def restart(self, reason: str) -> None:
        """Replace the engine; the requests go on. Not counted as a failure of it."""
        if self._state in (EngineState.SERVING, EngineState.LOADING):
            log.info("replacing the engine: %s", reason)
            self._lose_engine(has_failed=False)
            self._load()

    def close(self, error: EngineDeadError) -> None:
        """End every request with this error, and the engine. Idempotent."""
        if self._state is EngineState.DEAD:
            return
        self._lose_engine(has_failed=False)
        self._die(error)

    # --- the engine's life

    def _load(self) -> None:
        self._cancel_timer()
        self._state = EngineState.LOADING
        self._num_restarts += 1
        self._loading_since_s = self._heard_s = self._clock()
        try:
            self._engine = engine = self._launch()
        except OSError as error:
            self._on_end(f"could not be started: {error}")
            return
        engine.connect(self._on_message, self._on_end)
        if self._engine is engine and self._timer is None:
            self._watch()

    def _serve(self) -> None:
        """The engine is ready: send it everything."""
        self._state = EngineState.SERVING
        self._heard_s = self._progressed_s = self._clock()
        self._allowance_s = self._step_s = self._run_s = 0.0
        self._num_steps = 0
        engine = self._engine_or_fail()
        if self._tenants is not None:
            engine.send(self._tenants)
        for call, _ in self._calls.values():
            engine.send(call)
        self._watch()
        self._send_requests()

    def _send_requests(self) -> None:
        """Let the book send: a suspect alone, or everybody."""
        while True:
            self._suspects = [s for s in self._suspects if not self._book.has_ended(s)]
            suspect = self.suspect
            if suspect is not None:
                log.warning("request %s runs alone for now", suspect.request_id)
            self._book.open_engine(self._engine_or_fail().send, only=suspect)
            if suspect is None or not self._book.has_ended(suspect):
                return

    def _check_suspect(self) -> None:
        """Go on with the next, or with everybody, once the suspect is cleared or has ended."""
        suspect = self.suspect
        if suspect is not None and (self._book.has_ended(suspect) or not suspect.is_suspect):
            self._suspects.pop(0)
            self._send_requests()

    def _on_message(self, message: FromEngine) -> None:
        self._heard_s = self._clock()
        match message:
            case StepOutput():
                self._on_step(message)
            case StepBegins(num_tokens=num_tokens, started=started):
                self._book.on_step_begins(started)
                self._progressed_s = self._heard_s
                self._allowance_s = LONG_STEP_SLACK * num_tokens * self._token_s
            case CallResult(call_id=call_id):
                known = self._calls.pop(call_id, None)
                if known is not None:
                    self._progressed_s = self._heard_s
                    known[1](message)
            case Ready():
                if self._state is EngineState.LOADING:
                    took_s = self._heard_s - self._loading_since_s
                    log.info("the next engine is ready after %.1f s", took_s)
                    self._serve()
            case StartFailed(kind=kind, message=reason):
                self._on_end(f"could not start: {kind}: {reason}")
            case Phase():
                pass

    def _on_step(self, step: StepOutput) -> None:
        self._step_s += STEP_GAIN * (self._silent_s(self._heard_s) - self._step_s)
        self._num_steps += 1
        if self._num_steps == HEALTHY_STEPS:
            self._patience = 1
            self._num_unhealthy = 0
        self._progressed_s = self._heard_s
        self._allowance_s = 0.0
        run_s = step.stats.run_s - self._run_s
        if step.stats.num_scheduled_tokens and run_s > 0.0:
            # The cheapest: in a step of few tokens each is dear, and says nothing about many.
            self._token_s = min(self._token_s, run_s / step.stats.num_scheduled_tokens)
        self._run_s = step.stats.run_s
        self._book.on_step(step)
        self._check_suspect()

    def _on_end(self, reason: str, was_killed: bool = False) -> None:
        """The engine is gone, or must go: its work goes to another, or it was the last."""
        log.error("the engine process %s; %d requests wait", reason, len(self._book))
        alone = self.suspect if self._state is EngineState.SERVING else None
        if alone is not None and self._book.has_ended(alone):
            alone = None
        running = self._lose_engine(has_failed=True)
        error = EngineDeadError(f"the engine process {reason}")
        # Who kills an engine does not look at what it runs: that is held against a request only
        # if it happens again.
        if alone in running and alone.num_strikes >= (4 if was_killed else 3):
            self._suspects.remove(alone)
            text = f"{alone.num_strikes} engine processes in a row died while it ran"
            log.error("request %s ends: %s", alone.request_id, text)
            self._book.fail(alone, f"{text}; the last one {reason}")
        now = self._clock()
        self._ends.append(now)
        while self._ends and self._ends[0] < now - self._settings.window_s:
            self._ends.popleft()
        if len(self._ends) > self._settings.max_restarts:
            log.error(
                "%d engines died in %.0f s: giving up", len(self._ends), self._settings.window_s
            )
            self._die(error)
            return
        # An engine that did its work for a while may have met with a mishap: no delay. Otherwise
        # longer and longer ones.
        self._num_unhealthy += 1
        num_before = self._num_unhealthy - 1
        delay_s = min(FIRST_BACKOFF_S * 2**num_before, MAX_BACKOFF_S) if num_before else 0.0
        self._timer = self._set_timer(delay_s, self._load)

    def _lose_engine(self, *, has_failed: bool) -> list[RequestState]:
        """Kill what is left of the engine and take its work back; returns what it was running. If
        it has failed, that counts against those.
        """
        self._cancel_timer()
        running: list[RequestState] = []
        if self._state is EngineState.SERVING:
            self._suspects = [s for s in self._suspects if not self._book.has_ended(s)]
            running = self._book.close_engine(has_failed=has_failed)
            for state in running:
                if state.is_suspect and state not in self._suspects:
                    self._suspects.append(state)
        engine, self._engine = self._engine, None
        self._state = EngineState.WAITING
        if engine is not None:
            engine.kill()
        return running

    def _die(self, error: EngineDeadError) -> None:
        self._cancel_timer()
        self._state = EngineState.DEAD
        self._suspects = []
        calls, self._calls = self._calls, {}
        for call, on_result in calls.values():
            on_result(CallResult(call.call_id, error=str(error)))
        self._on_dead(error)

    def _engine_or_fail(self) -> Engine:
        assert self._engine is not None, f"{self._state} without an engine"
        return self._engine

    # --- hanging

    @property
    def _watch_interval_s(self) -> float:
        return self._settings.stall_timeout_s / 4

    def _watch(self) -> None:
        """Look again after a while whether the engine gets on."""
        self._cancel_timer()
        self._watch_due_s = self._clock() + self._watch_interval_s
        self._timer = self._set_timer(self._watch_interval_s, self._look)

    def _look(self) -> None:
        now = self._clock()
        self._timer = None
        late_s = 0.0 if self._watch_due_s is None else now - self._watch_due_s
        if late_s > self._watch_interval_s:
            # This process stood still itself: what the engine said may wait to be read.
            self._progressed_s = max(self._progressed_s, now - 2 * self._watch_interval_s)
        if self._state is EngineState.SERVING:
            # A suspect may have been aborted; an engine that hangs does not say that it heard.
            self._check_suspect()
        if (
            self._state is EngineState.LOADING
            and now - self._loading_since_s > self._loading_limit_s
        ):
            self._on_end(f"was not ready after {self._loading_limit_s:.0f} s")
        elif self._state is EngineState.SERVING and self._is_stalled(now):
            self._patience = min(2 * self._patience, MAX_PATIENCE)
            self._on_end(f"has finished no step for {self._silent_s(now):.1f} s, with work to do")
        else:
            self._watch()

    def _is_stalled(self, now: float) -> bool:
        limit_s = self._patience * self._settings.stall_timeout_s + self._allowance_s
        return self._silent_s(now) > limit_s + SLOW_STEP_SLACK * self._step_s

    def _silent_s(self, now: float) -> float:
        """How long it has had work and got nothing of it done."""
        since = [self._called_s] if self._calls else []
        if self._book.sent_since_s is not None:
            since.append(self._book.sent_since_s)
        return now - max(self._progressed_s, min(since)) if since else 0.0

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
