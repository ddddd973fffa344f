"""The real AsyncLLMEngine over simulated engines, and the clients that use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.simulation.draw import VOCAB_SIZE
from tests.simulation.ledger import Ledger
from tests.simulation.model import EOS_TOKEN_IDS, LETTERS
from tests.simulation.plan import Order, Plan
from tests.simulation.simulated_engine import SimulatedEngine
from tests.simulation.world import Event, World
from wheelpit.engine.admission import Admission
from wheelpit.engine.async_engine import AsyncLLMEngine
from wheelpit.engine.intake import Intake
from wheelpit.engine.messages import Call, CallResult, SetTenants
from wheelpit.engine.request_book import RequestBook
from wheelpit.engine.stats import FinishedRequest, StepRecord
from wheelpit.engine.supervisor import EngineHealth, Supervisor
from wheelpit.errors import EngineDeadError, EngineGenerateError


class Watcher:
    """A StatLogger that keeps what it hears of requests."""

    def __init__(self) -> None:
        self.finished: list[FinishedRequest] = []

    def on_step(self, record: StepRecord) -> None: ...

    def on_request_finished(self, record: FinishedRequest) -> None:
        self.finished.append(record)


class LetterTokenizer:
    """Token t is the t-th letter. Encoding takes as long as the plan says."""

    is_byte_level = True
    eos_token_id = None

    def __init__(self, world: World) -> None:
        self._world = world
        self.seconds: dict[str, float] = {}
        self._table = {token_id: letter.encode() for token_id, letter in enumerate(LETTERS)}

    async def encode_async(self, text: str, add_special_tokens: bool = True) -> list[int]:
        await self._world.sleep(self.seconds.get(text, 0.0))
        return [LETTERS.index(letter) for letter in text]

    def letter(self, token_id: int) -> str:
        return LETTERS[token_id]

    def byte_table(self, skip_special_tokens: bool) -> dict[int, bytes]:
        return self._table

    def token_to_text(self, token_id: int) -> str:
        return self.letter(token_id)


class SimulatedLink:
    """What AsyncLLMEngine wants of its EngineLink, over simulated engines and timers."""

    is_ready = True

    def __init__(self, world: World, plan: Plan, book: RequestBook, ledger: Ledger) -> None:
        self._world = world
        self._plan = plan
        self._book = book
        self._ledger = ledger
        self._death: EngineDeadError | None = None
        self._num_calls = 0
        self._num_engines = 0
        self._timers: set[Event] = set()
        self.supervisor = Supervisor(
            book, self._launch, world.clock, self._set_timer, plan.restarts, self._on_dead
        )

    @property
    def num_timers(self) -> int:
        """The supervisor's that are set."""
        self._timers = {timer for timer in self._timers if not timer.is_cancelled}
        return len(self._timers)

    @property
    def is_dead(self) -> bool:
        return self._death is not None

    @property
    def dead_error(self) -> EngineDeadError:
        error = EngineDeadError()
        error.__cause__ = self._death
        return error

    @property
    def engine(self) -> SimulatedEngine | None:
        """The present one; None between two."""
        current = self.supervisor.engine
        return current if isinstance(current, SimulatedEngine) else None

    def check(self) -> None:
        if self.is_dead:
            raise self.dead_error

    def attach(self) -> None: ...

    def health(self) -> EngineHealth:
        return self.supervisor.health()

    def set_tenants(self, message: SetTenants) -> None:
        self._ledger.tenants = message
        self.supervisor.set_tenants(message)

    async def call(self, method: str) -> Any:
        self.check()
        future: asyncio.Future[CallResult] = self._world.loop.create_future()
        self._num_calls += 1
        number = self._num_calls

        def resolve(result: CallResult) -> None:
            del self._ledger.calls_s[number]
            if not future.done():
                future.set_result(result)

        self._ledger.calls_s[number] = self._world.clock.now
        self.supervisor.call(Call(number, method), resolve)
        result = await future
        self.check()
        if result.error is not None:
            raise EngineGenerateError(result.error)
        return result.value

    def restart(self, reason: str) -> None:
        self.check()
        self._ledger.is_replacing = True
        self.supervisor.restart(reason)
        self._ledger.is_replacing = False

    def close(self) -> None:
        if not self.is_dead:
            self._ledger.is_replacing = True
            self.supervisor.close(EngineDeadError("the engine was shut down"))
            self._ledger.is_replacing = False

    def adopt_first(self) -> None:
        self.supervisor.adopt(self._launch(), 1.0)

    def _set_timer(self, delay_s: float, callback: Callable[[], None]) -> Event:
        def ring() -> None:
            self._timers.discard(timer)
            callback()

        timer = self._world.set_timer(delay_s, ring)
        self._timers.add(timer)
        return timer

    def _launch(self) -> SimulatedEngine:
        number, self._num_engines = self._num_engines, self._num_engines + 1
        try:
            return SimulatedEngine(self._world, self._plan, number, self._ledger)
        except OSError:
            self._world.say(f"engine {number} cannot be started")
            self._ledger.on_no_process()
            raise

    def _on_dead(self, error: EngineDeadError) -> None:
        self._world.say(f"no more engines: {error}")
        self._death = error
        self._book.fail_all(lambda: self.dead_error)


class FrontEnd:
    """One AsyncLLMEngine, put together as its constructor does but for processes and clocks."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self.ledger = Ledger(world, plan)
        self.watcher = Watcher()
        self.aborted_ids: set[str] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.num_orders_left = len(plan.orders)
        """Of the plan's, those that are not carried out yet; pauses end once more."""
        self.tokenizer = LetterTokenizer(world)
        for request in plan.requests:
            if request.is_text:
                text = "".join(LETTERS[token_id] for token_id in request.prompt)
                self.tokenizer.seconds[text] = request.tokenize_s
        admission = Admission(plan.limits, plan.config.scheduler)
        self.book = RequestBook(admission, world.clock, [self.watcher], world.set_timer)
        self.link = SimulatedLink(world, plan, self.book, self.ledger)
        max_model_len = plan.config.model.max_model_len
        model = SimpleNamespace(
            tokenizer=self.tokenizer,
            max_model_len=max_model_len,
            max_logprobs=5,
            vocab_size=VOCAB_SIZE,
            max_token_id=VOCAB_SIZE - 1,
            max_token_chars=1,
            eos_token_ids=EOS_TOKEN_IDS,
            primary_eos_token_id=EOS_TOKEN_IDS[0],
        )
        launched: Any = SimpleNamespace(model=model, config=plan.config, log_stats=True)
        link: Any = self.link
        self.intake = Intake(launched, admission, link, self.book.report, world.clock)
        self.admission = admission
        self.ledger.book, self.ledger.intake = self.book, self.intake
        self.ledger.supervisor = self.link.supervisor
        engine = self.engine = AsyncLLMEngine.__new__(AsyncLLMEngine)
        engine.config, engine.model_config = plan.config, launched.model
        engine.log_stats, engine.log_requests = True, False
        engine._book, engine._link, engine._intake = self.book, link, self.intake
        self.intake.on_ready(plan.num_blocks * plan.config.cache.block_size)
        self.link.adopt_first()

    def on_abort(self, request_id: str) -> None:
        """Somebody aborts this id: its requests may end so from now on."""
        self.aborted_ids.add(request_id)

    def obey(self, order: Order) -> None:
        """Do to the engine what the plan says."""
        self._world.say(f"order: {order.kind} {order.mode}".rstrip())
        self.num_orders_left -= 1
        current = self.link.engine
        match order.kind:
            case "kill":
                if current is not None:
                    current.die("was killed by signal 9", was_killed=True)
            case "stand_still":
                self._world.stand_still(order.seconds)
            case "close":
                self.engine.shutdown()
            case _ if self.link.is_dead:
                pass
            case "restart":
                self.engine.restart_engine()
            case "limits":
                assert order.limits is not None
                self.engine.update_limits(order.limits)
            case "reset_cache":
                self._spawn(self.engine.reset_prefix_cache)
            case "pause":
                self._spawn(lambda: self._pause(order))
                self.num_orders_left += 1
                self._world.set_timer(order.seconds, self._resume)

    def _resume(self) -> None:
        self.num_orders_left -= 1
        self._world.say("generation is resumed")
        self._spawn(self.engine.resume_generation)

    async def _pause(self, order: Order) -> None:
        await self.engine.pause_generation(mode=order.mode, clear_cache=order.mode == "abort")

    def _spawn(self, work: Callable[[], Any]) -> None:
        async def run() -> None:
            try:
                await work()
            except EngineDeadError:
                pass

        self.tasks.append(self._world.spawn(run()))
