"""What the front end was told, counted again, and what must hold between that and its own counts.

The ledger sees every message as it is sent, handled and delivered, and every engine's end. From
these alone it knows who has started, who was running when an engine ended, and how often.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.model import identify
from tests.simulation.plan import Plan
from tests.simulation.violation import demand
from tests.simulation.world import World
from wheelpit.engine.intake import Intake
from wheelpit.engine.messages import (
    Abort,
    AddRequest,
    Call,
    CallResult,
    FromEngine,
    Ready,
    SetTenants,
    StepBegins,
    StepOutput,
)
from wheelpit.engine.request_book import OVERDUE_S, SHORTEST_TIMER_S, RequestBook
from wheelpit.engine.supervisor import EngineState, Supervisor
from wheelpit.scheduling.batch import ScheduledBatch
from wheelpit.scheduling.sequence import Sequence, SequenceStatus
from wheelpit.scheduling.tenants import TenantShare

if TYPE_CHECKING:
    from tests.simulation.simulated_engine import SimulatedEngine

EPSILON_S = 1e-6
"""What sums of seconds may be off by."""

LATE_S = OVERDUE_S + SHORTEST_TIMER_S + EPSILON_S
"""By how much nobody outlives a deadline, as long as the front end does not stand still."""


@dataclass(slots=True)
class SequenceRecord:
    """One sequence's history with its engines.

    num_strikes: engines in a row that failed while it ran, without a token in between.
    """

    num_strikes: int = 0
    num_tokens: int = 0


@dataclass(slots=True)
class Record:
    """One request's. was_alone, was_killed, was_running: at the last engine that failed while the
    request was there, was it alone, was the engine killed from outside, and did it run?
    """

    sequences: list[SequenceRecord]
    was_alone: bool = False
    was_killed: bool = False
    was_running: bool = False
    num_poisonings: int = 0


class Ledger:
    """Written by the simulated engines and the link, as they pass things on."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self.records = {
            request.number: Record([SequenceRecord() for _ in range(request.n)])
            for request in plan.requests
        }
        self.engines: list[SimulatedEngine] = []
        self.num_restarts_ordered = 0
        self.is_replacing = False
        """The supervisor was told to end this engine: that is no failure."""
        self.failures_s: list[float] = []
        self.calls_s: dict[int, float] = {}
        """When the calls were made that are not answered."""
        self.tenants: SetTenants | None = None
        """What the front end has said last."""
        self._started: set[str] = set()
        self._on_engine: dict[int, dict[str, tuple[int, int]]] = {}
        self._running: dict[str, None] = {}
        self._ever_sent: set[int] = set()
        self._taken_back: set[str] = set()
        """Sequences that the engine was told to drop."""
        self._sent_s: dict[str, float] = {}
        self._progressed_s = 0.0
        self.announced: set[tuple[int, int]] = set()
        """(request, index) of the sequences that are known to have started while they lived."""
        self._shares: dict[int, SetTenants | None] = {}
        self._promised: dict[int, deque[SetTenants | None]] = {}
        self._was_running: set[Sequence] = set()
        self.book: RequestBook
        self.intake: Intake
        self.supervisor: Supervisor

    # --- what engines report

    def on_launched(self, engine: SimulatedEngine) -> None:
        self.engines.append(engine)
        self._on_engine[engine.number] = {}
        self._shares[engine.number] = None
        self._promised[engine.number] = deque()
        self._running, self._taken_back = {}, set()

    def on_sent(self, engine: SimulatedEngine, message: object) -> None:
        if isinstance(message, AddRequest):
            number, index = identify(message.request_id, message.params)
            known = self._on_engine[engine.number]
            is_new = message.request_id not in known or message.request_id in self._taken_back
            demand(is_new, f"request {number}.{index} is sent twice")
            known[message.request_id] = (number, index)
            self._taken_back.discard(message.request_id)
            self._running.pop(message.request_id, None)
            self._sent_s[message.request_id] = self._world.clock.now
            is_held = self.book.is_on_hold and number not in self._ever_sent
            demand(not is_held, f"request {number} is sent while the book is on hold")
            self._ever_sent.add(number)
            record = self.records[number].sequences[index]
            demand(
                len(message.output_token_ids) == record.num_tokens,
                f"request {number}.{index} is sent with other tokens than it has",
            )
            self._promised[engine.number].append(self.tenants)
            if self._world.trace is not None:
                so_far = len(message.output_token_ids)
                self._world.say(
                    f"-> engine {engine.number}: request {number}.{index} from {so_far}"
                )
        elif isinstance(message, Abort):
            self._taken_back.update(message.request_ids)
            names = [self._name(engine, each) for each in message.request_ids]
            self._world.say(f"-> engine {engine.number}: abort {', '.join(names)}")

    def on_handled(
        self, engine: SimulatedEngine, message: AddRequest | Abort | SetTenants | Call
    ) -> None:
        if isinstance(message, SetTenants):
            self._shares[engine.number] = message
        elif isinstance(message, AddRequest):
            said = self._promised[engine.number].popleft()
            demand(self._shares[engine.number] == said, "the engine does not know the tenants")

    def before_step(self, engine: SimulatedEngine) -> None:
        self._was_running = set(engine.core._scheduler._running)

    def on_run(self, engine: SimulatedEngine, batch: ScheduledBatch, now: float) -> None:
        """Nothing in a step is over; seats are kept."""
        if now > self._world.clock.now:
            return  # once more, one by one
        started = set(batch.started)
        for scheduled in batch.sequences:
            sequence = scheduled.sequence
            missed = sequence.deadlines.missed(
                now, was_scheduled=sequence not in started, has_output=sequence.has_output
            )
            name = sequence.request_id
            if missed is not None:
                demand(False, f"a step computes {self._name(engine, name)} after its {missed}")
            is_wanted = engine.was_told_end or self._lives(name) or name in self._taken_back
            if not is_wanted and self.supervisor.engine is engine:
                demand(False, f"a step computes {self._name(engine, name)}, which has ended")
        running = engine.core._scheduler._running
        demand(
            len(batch.sequences) <= self._plan.config.scheduler.max_num_seqs
            and batch.num_tokens <= self._plan.config.scheduler.max_num_batched_tokens,
            "a step is larger than the limits",
        )
        if self.failures_s and self.supervisor.engine is engine:
            self._check_company(engine, batch)
        shares = self._shares[engine.number]
        if shares is None:
            return
        counts = Counter(sequence.tenant for sequence in running)
        for sequence in running:
            share: TenantShare = shares.tenants.get(sequence.tenant, shares.default)
            if sequence in self._was_running or share.max_running is None:
                continue
            demand(
                counts[sequence.tenant] <= share.max_running,
                f"tenant {sequence.tenant!r} has more than its {share.max_running} seats",
            )

    def _check_company(self, engine: SimulatedEngine, batch: ScheduledBatch) -> None:
        """Who is under suspicion is alone in a step, but for those that are being taken back."""
        known = self._on_engine[engine.number]
        wanted = {
            known[scheduled.sequence.request_id]
            for scheduled in batch.sequences
            if scheduled.sequence.request_id not in self._taken_back
        }
        numbers = {number for number, _ in wanted}
        is_suspected = any(self.records[n].sequences[i].num_strikes >= 2 for n, i in wanted)
        demand(
            not is_suspected or len(numbers) == 1,
            f"one of the requests {sorted(numbers)} is under suspicion, and not alone",
        )

    def after_step(self, engine: SimulatedEngine, output: StepOutput) -> None:
        scheduler = engine.core._scheduler
        scheduler.check()
        stats = scheduler.stats()
        if not scheduler.has_work:
            demand(stats.num_free_blocks == stats.num_blocks, "an idle engine has blocks in use")
        for sequence in scheduler._running:
            demand(sequence.status is SequenceStatus.RUNNING, "an ended sequence runs")

    def on_poisoned(self, number: int) -> None:
        self.records[number].num_poisonings += 1

    def on_delivered(self, engine: SimulatedEngine, message: FromEngine) -> None:
        if isinstance(message, (StepBegins, StepOutput, CallResult, Ready)):
            self._progressed_s = self._world.clock.now
        if isinstance(message, StepBegins):
            self._running.update(dict.fromkeys(message.started))
            self._started.update(message.started)
            known = self._on_engine[engine.number]
            self.announced.update(known[name] for name in message.started if self._lives(name))
            if self._world.trace is not None:
                names = [self._name(engine, each) for each in message.started]
                self._world.say(
                    f"<- engine {engine.number}: a step of {message.num_tokens} tokens begins"
                    + (f", starting {', '.join(names)}" if names else "")
                )
        elif isinstance(message, StepOutput):
            self._started.update(message.started)
            known = self._on_engine[engine.number]
            for output in message.outputs:
                is_known = output.request_id in known
                demand(is_known, f"engine {engine.number} was not sent all that it speaks of")
                number, index = known[output.request_id]
                if self._lives(output.request_id) and output.token_ids:
                    record = self.records[number].sequences[index]
                    record.num_tokens += len(output.token_ids)
                    record.num_strikes = 0
            if self._world.trace is not None:
                self._world.say(f"<- engine {engine.number}: {self._describe(engine, message)}")
        elif self._world.trace is not None:
            self._world.say(f"<- engine {engine.number}: {type(message).__name__}")

    def after_delivered(self, engine: SimulatedEngine, message: FromEngine) -> None:
        if isinstance(message, StepOutput) and self.supervisor.engine is engine:
            demand(self.book.stats().engine == message.stats, "the gauges are not the engine's")

    def on_end(self, engine: SimulatedEngine, *, was_killed: bool) -> None:
        """The supervisor will be told now."""
        self._world.say(f"the end of engine {engine.number} is noticed")
        self._on_lost(engine, was_killed=was_killed)

    def on_killed(self, engine: SimulatedEngine) -> None:
        if not self.is_replacing and not engine.was_told_end:
            if self.supervisor.state is EngineState.SERVING:
                self._check_patience(engine)
            self._on_lost(engine, was_killed=False)

    def _check_patience(self, engine: SimulatedEngine) -> None:
        """Nobody takes an engine for hung that has not had work for the whole timeout."""
        since = [
            self._sent_s[name]
            for name in self._on_engine[engine.number]
            if self._lives(name) and name not in self._taken_back
        ]
        since += list(self.calls_s.values())
        demand(bool(since), "an engine without work is taken for hung")
        silent_s = self._world.clock.now - max(self._progressed_s, min(since))
        demand(
            silent_s >= self._plan.restarts.stall_timeout_s - EPSILON_S,
            f"an engine is taken for hung after {silent_s:.3f} s",
        )

    def on_no_process(self) -> None:
        self.failures_s.append(self._world.clock.now)

    # --- strikes

    def _on_lost(self, engine: SimulatedEngine, *, was_killed: bool) -> None:
        """Who ran on it gets a strike, unless it got a token there."""
        now = self._world.clock.now
        self.failures_s.append(now)
        sent = self._on_engine[engine.number]
        living = {
            key: name
            for name, key in sent.items()
            if self._lives(name) and name not in self._taken_back
        }
        numbers = {number for number, _ in living}
        for number in numbers:
            request = self.records[number]
            request.was_alone, request.was_killed = len(numbers) == 1, was_killed
            request.was_running = False
        for (number, index), name in living.items():
            request = self.records[number]
            record = request.sequences[index]
            if name in self._running:
                record.num_strikes += 1
                request.was_running = True
            elif record.num_strikes < 2:
                record.num_strikes = 0

    def _lives(self, sequence_id: str) -> bool:
        known = self.book._sequences.get(sequence_id)
        return known is not None and known[1].finish_reason is None

    # --- what must hold between any two events

    def check(self) -> None:
        self._check_admission()
        if not self._world.is_front_end_behind:
            self._check_deadlines()
        if self.supervisor.state is EngineState.DEAD:
            demand(not len(self.book), "a request lives on though there will be no engine")

    def _check_admission(self) -> None:
        admission = self.intake._admission
        queued: Counter[str] = Counter()
        running: Counter[str] = Counter()
        reserved: Counter[str] = Counter()
        num_tokens = 0
        for reservation in self.intake._pending:
            queued[reservation.tenant] += reservation.num_sequences
            num_tokens += reservation.num_tokens * reservation.num_sequences
            reserved[reservation.tenant] += 1
        for state in self.book._requests:
            tenant = state.reservation.tenant
            reserved[tenant] += 1
            for completion in state.completions:
                if completion.finish_reason is not None:
                    continue
                if completion.sequence_id in self._started:
                    running[tenant] += 1
                else:
                    queued[tenant] += 1
                    num_tokens += len(state.prompt_token_ids)
        counted = (admission.num_queued, admission.num_running, admission.num_queued_tokens)
        right = (queued.total(), running.total(), num_tokens)
        demand(counted == right, f"admission counts {counted}, right is {right}")
        for name, account in admission._accounts.items():
            counts = (account.num_reservations, account.num_queued, account.num_running)
            right = (reserved[name], queued[name], running[name])
            demand(counts == right, f"tenant {name!r} counts {counts}, right is {right}")
        demand(+reserved <= Counter(dict.fromkeys(admission._accounts, 10**9)), "no account")

    def _check_deadlines(self) -> None:
        now = self._world.clock.now - LATE_S
        for state in self.book._requests:
            for completion in state.completions:
                missed = state.reservation.deadlines.missed(
                    now,
                    was_scheduled=completion.sequence_id in self._started,
                    has_output=bool(completion.token_ids),
                )
                demand(
                    missed is None or completion.finish_reason is not None,
                    f"request {state.request_id} outlives its {missed}",
                )

    # --- words

    def _name(self, engine: SimulatedEngine, sequence_id: str) -> str:
        known = self._on_engine[engine.number].get(sequence_id)
        return "one that it does not have" if known is None else f"{known[0]}.{known[1]}"

    def _describe(self, engine: SimulatedEngine, step: StepOutput) -> str:
        words = [
            f"{self._name(engine, output.request_id)} {output.token_ids}"
            + (f" {output.finish_reason}" if output.finish_reason else "")
            + (f" ({output.stop_reason})" if output.stop_reason is not None else "")
            for output in step.outputs
        ]
        stats = step.stats
        return (
            f"step {stats.num_steps}, {stats.num_running} running, {stats.num_waiting} waiting: "
            + (", ".join(words) or "nothing")
        )
