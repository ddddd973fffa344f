"""One engine process in virtual time: the worker's loop around the real core, and its ways to fail.

A step is computed at once when it begins, on a clock of the engine's own that runs ahead; what came
of it is sent when it ends. Nobody can tell the difference: the front end cannot reach into a step.

Faults, each at the step, message or start that the plan names:

    crash_before_message, crash_after_message    dies as it reads its socket
    crash_before_step                            nothing of the step was said
    crash_in_step                                it was announced who starts
    crash_after_step                             computed, but not sent
    crash_after_sending                          the last thing that it did; may be cut off
    hang_silently, hang_in_step                  before or after the announcement
    slow_step, out_of_memory, step_raises        the engine lives on
    crash_loading, start_failed, no_process, hang_loading    instead of Ready
"""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes import ManualClock
from tests.simulation.draw import STEP_FAULTS
from tests.simulation.ledger import Ledger
from tests.simulation.model import SimulatedRunner, poisons_in
from tests.simulation.plan import Fault, Plan
from tests.simulation.world import Event, Side, World
from wheelpit.engine.core import EngineCore
from wheelpit.engine.messages import (
    Abort,
    AddRequest,
    Call,
    CallResult,
    FromEngine,
    Ready,
    SetTenants,
    StartFailed,
    StepBegins,
    StepOutput,
    ToEngine,
)
from wheelpit.engine.transport import FrameDecoder, frame
from wheelpit.scheduling.batch import ScheduledBatch


class _EngineGoneError(BaseException):
    """The process ends here and now; no `except Exception` sees it."""


class _EngineHangsError(BaseException):
    """This step will never end."""


class Pipe:
    """One direction of the socket: bytes arrive in order, a little later, perhaps in pieces."""

    def __init__(
        self, world: World, side: Side, latency_s: float, deliver: Callable[[bytes], None]
    ) -> None:
        self._world = world
        self._side = side
        self._latency_s = latency_s
        self._deliver = deliver
        self._last_s = 0.0
        self._last_piece: Event | None = None

    def send(self, data: bytes) -> None:
        random = self._world.random
        if self._latency_s and random.random() < 0.1:
            cut = random.randrange(len(data))
            self._arrive(data[:cut])
            data = data[cut:]
        self._arrive(data)

    def close(self, on_end: Callable[[], None], *, is_cut_off: bool) -> None:
        """Have the other side see the end, after all that was sent; or all but the last piece, if
        that has not arrived.
        """
        if is_cut_off and self._last_piece is not None:
            self._last_piece.cancel()
        self._world.at(self._next_s(), self._side, on_end)

    def _arrive(self, data: bytes) -> None:
        self._last_piece = self._world.at(self._next_s(), self._side, lambda: self._deliver(data))

    def _next_s(self) -> float:
        delay_s = self._world.random.uniform(0.0, self._latency_s)
        self._last_s = max(self._last_s, self._world.clock.now + delay_s)
        return self._last_s


class SimulatedEngine:
    """The supervisor's `Engine`, and the process behind it."""

    def __init__(self, world: World, plan: Plan, number: int, ledger: Ledger) -> None:
        """Raises OSError if the plan has no process for it."""
        self.number = number
        self._world = world
        self._plan = plan
        self._ledger = ledger
        self._faults = [fault for fault in plan.faults if fault.engine == number]
        if number and self._fault("no_process"):
            raise OSError("no more processes")
        self._on_message: Callable[[FromEngine], None] = lambda message: None
        self._on_end: Callable[[str, bool], None] = lambda reason, was_killed: None
        self._is_gone = False
        self.is_hung = False
        self.was_told_end = False
        self._is_killed = False
        self._is_ready = False
        self.is_busy = False
        self._num_steps = 0
        self._num_messages = 0
        self._inbox: list[AddRequest | Abort | SetTenants | Call] = []
        self._decoder = FrameDecoder(FromEngine)
        self._engine_decoder = FrameDecoder(ToEngine)
        latency_s = plan.latency_s
        self._to_engine = Pipe(world, Side.ENGINE, latency_s, self._receive)
        self._to_front_end = Pipe(world, Side.FRONT_END_READS, latency_s, self._deliver)
        self._clock = ManualClock()
        self._runner = SimulatedRunner(plan, self._clock, self._before_run)
        self._step_fault: Fault | None = None
        self.core = EngineCore(plan.config, self._runner, self._clock, self._announce)
        ledger.on_launched(self)
        if number == 0:
            self._is_ready = True
        else:
            self._load()

    # --- the supervisor's view

    def send(self, message: AddRequest | Abort | SetTenants | Call) -> None:
        data = frame(message)
        if not self._is_killed:
            self._ledger.on_sent(self, message)
            self._to_engine.send(data)

    def connect(
        self, on_message: Callable[[FromEngine], None], on_end: Callable[[str, bool], None]
    ) -> None:
        self._on_message, self._on_end = on_message, on_end

    def kill(self) -> None:
        if not self._is_killed:
            self._world.say(f"engine {self.number} is put to death")
            self._is_killed = self._is_gone = True
            self._ledger.on_killed(self)

    # --- the transport

    def _receive(self, data: bytes) -> None:
        if not self._is_gone:
            self._inbox += self._engine_decoder.feed(data)
            if self._is_ready and not self.is_busy:
                self._turn()

    def _deliver(self, data: bytes) -> None:
        if self._is_killed:
            return
        for message in self._decoder.feed(data):
            if self._is_killed:
                break
            self._ledger.on_delivered(self, message)
            self._on_message(message)
            self._ledger.after_delivered(self, message)

    def _transmit(self, message: FromEngine) -> None:
        self._to_front_end.send(frame(message))

    # --- the process

    def die(self, reason: str, *, was_killed: bool = False, is_cut_off: bool = False) -> None:
        """End without another word; what was sent arrives before the end of the stream does."""
        if self._is_gone:
            return
        self._world.say(f"engine {self.number} {reason}")
        self._is_gone, self.is_busy = True, False

        def end() -> None:
            if not self._is_killed:
                self.was_told_end = True
                self._ledger.on_end(self, was_killed=was_killed)
                self._on_end(reason, was_killed)

        self._to_front_end.close(end, is_cut_off=is_cut_off)

    def _load(self) -> None:
        fault = self._fault("crash_loading", "start_failed", "hang_loading")
        self._world.say(f"engine {self.number} loads{'' if fault is None else ': ' + fault.kind}")

        def end() -> None:
            if self._is_gone:
                return
            if fault is not None and fault.kind == "start_failed":
                self._transmit(StartFailed("ModelLoadError", "a file is missing"))
                self.die("exited with status 1")
            elif fault is not None:
                self.die("exited with status 3")
            else:
                self._is_ready = True
                config = self._plan.config.scheduler
                self._transmit(
                    Ready(
                        "float32",
                        "cpu",
                        self._plan.num_blocks,
                        self._plan.config.cache.block_size,
                        config.max_num_seqs,
                        config.max_num_batched_tokens,
                        self._runner.vocab_size,
                    )
                )

        if fault is None or fault.kind != "hang_loading":
            self._world.at(self._world.clock.now + self._plan.load_s, Side.ENGINE, end)

    def _turn(self) -> None:
        """What `worker.serve` does between two waits for its socket."""
        messages, self._inbox = self._inbox, []
        if self._is_gone or self.is_hung:
            return
        self.is_busy = False
        self._clock.now = self._world.clock.now
        for message in messages:
            index, self._num_messages = self._num_messages, self._num_messages + 1
            if self._fault("crash_before_message", index=index):
                self.die("exited with status 4")
                return
            self._handle(message)
            self._ledger.on_handled(self, message)
            if self._fault("crash_after_message", index=index):
                self.die("exited with status 5")
                return
        expired = self.core.expire()
        if expired is not None:
            self._transmit(expired)
        if self.core.has_work:
            self._step()
        elif messages:
            self._transmit(StepOutput([], self.core.stats()))

    def _handle(self, message: AddRequest | Abort | SetTenants | Call) -> None:
        match message:
            case AddRequest():
                self.core.add(message)
            case Abort(request_ids=request_ids):
                self.core.abort(request_ids)
            case SetTenants(tenants=tenants, default=default):
                self.core.set_tenants(tenants, default)
            case Call(call_id=call_id):
                self._transmit(CallResult(call_id, self.core.reset_prefix_cache()))

    def _step(self) -> None:
        index, self._num_steps = self._num_steps, self._num_steps + 1
        fault = self._step_fault = self._fault(*STEP_FAULTS, index=index)
        kind = None if fault is None else fault.kind
        if kind is not None:
            self._world.say(f"engine {self.number} step {index}: {kind}")
        if kind == "crash_before_step":
            self.die("was killed by signal 11")
            return
        if kind == "hang_silently":
            self.is_hung = True
            return
        self._ledger.before_step(self)
        try:
            output = self.core.step()
        except _EngineGoneError:
            self.die("was killed by signal 6")
            return
        except _EngineHangsError:
            self.is_hung = True
            return
        self._ledger.after_step(self, output)
        self.is_busy = True

        def end() -> None:
            if self._is_gone:
                return
            if kind == "crash_after_step":
                self.die("exited with status 6")
                return
            self._transmit(output)
            if kind == "crash_after_sending":
                self.die("exited with status 7", is_cut_off=self._world.random.random() < 0.5)
                return
            self._turn()

        self._world.at(self._clock.now, Side.ENGINE, end)

    def _announce(self, message: StepBegins) -> None:
        self._transmit(message)

    def _before_run(self, batch: ScheduledBatch) -> None:
        """What goes wrong in the middle of a step, by the plan or because of a request in it."""
        self._ledger.on_run(self, batch, self._clock.now)
        fault, self._step_fault = self._step_fault, None
        if fault is not None:
            match fault.kind:
                case "crash_in_step":
                    raise _EngineGoneError
                case "hang_in_step":
                    raise _EngineHangsError
                case "slow_step":
                    self._clock.advance(fault.seconds)
                case "out_of_memory":
                    raise MemoryError("the plan says so")
                case "step_raises":
                    raise RuntimeError("the plan says so")
        for number, poison in poisons_in(self._plan, batch):
            self._world.say(f"engine {self.number}: request {number} is poison: {poison.kind}")
            match poison.kind:
                case "crash":
                    self._ledger.on_poisoned(number)
                    raise _EngineGoneError
                case "hang":
                    self._ledger.on_poisoned(number)
                    raise _EngineHangsError
                case "raise":
                    raise RuntimeError("the request says so")

    def _fault(self, *kinds: str, index: int = 0) -> Fault | None:
        return next((f for f in self._faults if f.kind in kinds and f.index == index), None)
