"""Run one plan to its end, and check everything after every event."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial

from tests.simulation.client import Client
from tests.simulation.front_end import FrontEnd
from tests.simulation.ledger import EPSILON_S
from tests.simulation.plan import Plan
from tests.simulation.violation import Violation, demand
from tests.simulation.world import Side, World
from wheelpit.engine.supervisor import LONG_STEP_SLACK, MIN_LOADING_S

MAX_EVENTS = 60_000


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a plan. violation: None if everything held."""

    plan: Plan
    violation: str | None
    num_events: int
    trace: list[str]
    endings: Counter[str]


def run_plan(plan: Plan, *, with_trace: bool = False) -> Result:
    """Simulate; raises only what is an error of the simulator itself, or of the code under it."""
    simulation = Simulation(plan, with_trace=with_trace)
    violation = None
    previous = asyncio._get_running_loop()
    asyncio._set_running_loop(simulation.world.loop)  # type: ignore[arg-type]  # as far as needed
    try:
        simulation.run()
    except (Violation, Exception) as error:
        kind = "" if isinstance(error, Violation) else f"{type(error).__name__}: "
        violation = f"{kind}{error}"
        simulation.world.say(f"VIOLATION: {violation}")
    finally:
        simulation.abandon()
        asyncio._set_running_loop(previous)
    world = simulation.world
    endings = Counter(client.describe() for client in simulation.clients)
    return Result(plan, violation, world.num_events, world.trace or [], endings)


class Simulation:
    """A world with one front end, its clients and its engines."""

    def __init__(self, plan: Plan, *, with_trace: bool) -> None:
        self.plan = plan
        self.world = World(plan.seed, with_trace=with_trace)
        self.front_end = FrontEnd(self.world, plan)
        self.clients = [
            Client(self.world, plan, self.front_end, request) for request in plan.requests
        ]

    def run(self) -> None:
        """Let everything happen that is in the plan, then wait until all is quiet."""
        world, begin_s = self.world, self.world.clock.now
        for client in self.clients:
            world.at(begin_s + client.request.at_s, Side.FRONT_END, client.arrive)
        for order in self.plan.orders:
            world.at(begin_s + order.at_s, Side.FRONT_END, partial(self.front_end.obey, order))
        patience_s = begin_s + self.plan.end_s + self._patience_s()
        while not self._is_everybody_served():
            self._step()
            if world.clock.now > patience_s or world.num_events > MAX_EVENTS:
                waiting = [c.request.number for c in self.clients if c.ending is None]
                raise Violation(f"requests {waiting} wait for ever" if waiting else "an order does")
        # What is under way reaches the other side, and its answer this one.
        while self._is_engine_busy() and world.num_events <= MAX_EVENTS:
            self._step()
        quiet_s = world.clock.now + 10 * self.plan.latency_s + 0.001
        while world.has_event_before(quiet_s):
            self._step()
        while self._is_engine_busy() and world.num_events <= MAX_EVENTS:
            self._step()
        quiet_s = world.clock.now + 10 * self.plan.latency_s + 0.001
        while world.has_event_before(quiet_s):
            self._step()
        self._check_end()

    def abandon(self) -> None:
        """Cancel what still waits, so that nothing of it is reported when it is collected."""
        for task in (*(client.task for client in self.clients), *self.front_end.tasks):
            if task is not None and not task.done():
                task.cancel()
        self.world.loop.run_ready()

    def _step(self) -> None:
        demand(self.world.step(), "nothing happens any more")
        for client in self.clients:
            if client.violation is not None:
                raise client.violation
        self.front_end.ledger.check()
        link = self.front_end.link
        demand(link.num_timers <= (not link.is_dead), f"{link.num_timers} timers watch the engine")
        if self.world.num_events % 8 == 0:
            self._ask()

    def _ask(self) -> None:
        """What anybody may ask at any time is answered, whatever goes on."""
        engine = self.front_end.engine
        for request_id in {client.request.request_id: None for client in self.clients}:
            progress = engine.progress(request_id)
            if progress is not None and progress.state == "queued":
                demand((progress.position or 0) >= 1, f"position {progress.position} in the queue")
        stats = engine.stats()
        demand(stats.num_requests == len(self.front_end.book), "the number of requests is wrong")
        demand(stats.drain_rate is None or stats.drain_rate >= 0.0, "a negative drain rate")
        engine.health()

    def _patience_s(self) -> float:
        """Longer than all the faults can last one after the other."""
        plan = self.plan
        num_deaths = len(plan.faults) + len(plan.orders) + 3 * len(plan.requests) + 3
        # An announced step gets time in proportion to what a token took in the one before it, and
        # that may have been a slow step of one token.
        slowest_s = plan.step_s + plan.token_s + max((f.seconds for f in plan.faults), default=0.0)
        num_tokens = sum(request.n * len(request.prompt) for request in plan.requests)
        announced_s = LONG_STEP_SLACK * slowest_s * num_tokens
        each_s = MIN_LOADING_S + 10.0 + 4 * plan.restarts.stall_timeout_s + announced_s
        return num_deaths * each_s + 60.0

    def _is_everybody_served(self) -> bool:
        front_end = self.front_end
        return (
            all(client.ending is not None for client in self.clients)
            and front_end.num_orders_left == 0
            and all(task.done() for task in front_end.tasks)
        )

    def _is_engine_busy(self) -> bool:
        engine = self.front_end.link.engine
        return engine is not None and engine.is_busy

    # --- at the end

    def _check_end(self) -> None:
        for client in self.clients:
            self._check_ending(client)
        for task in self.front_end.tasks:
            demand(task.exception() is None, f"an order has failed: {task.exception()!r}")
        self._check_reports()
        self._check_poison()
        self._check_giving_up()
        admission, book = self.front_end.admission, self.front_end.book
        counts = (admission.num_queued, admission.num_queued_tokens, admission.num_running)
        demand(counts == (0, 0, 0), f"admission still counts {counts}")
        left = [len(each) for each in (book._requests, book._by_id, book._sequences)]
        demand(left == [0, 0, 0], f"the book still has {left}")
        demand(len(book._places) == 0, "somebody still has a place in the queue")
        demand(self.front_end.intake.num_pending == 0, "somebody is still on the way in")
        engine = self.front_end.link.engine
        if engine is not None and not engine.is_hung:
            stats = engine.core.stats()
            held = (stats.num_running, stats.num_waiting, stats.kv_cache_usage)
            demand(held == (0, 0, 0.0), f"the engine still has {held}")
            gauges = book.stats().engine
            shown = (gauges.num_running, gauges.num_waiting, gauges.kv_cache_usage)
            demand(shown == (0, 0, 0.0), f"the gauges still show {shown}")

    def _check_ending(self, client: Client) -> None:
        request, ending = client.request, client.ending
        name = f"request {request.number}"
        plan, front_end = self.plan, self.front_end
        if ending == "dead":
            demand(front_end.link.is_dead, f"{name} got EngineDeadError of a living engine")
        elif ending == "left":
            has_left = request.leaves_s is not None or request.leaves_after is not None
            demand(has_left, f"{name} is left, and nobody left it")
        elif ending == "invalid":
            room = min(plan.config.model.max_model_len, plan.max_num_tokens)
            demand(len(request.prompt) + 1 > room, f"{name} was refused as invalid")
        if ending != "finished":
            return
        for output in client.last.values():
            match output.finish_reason:
                case "error":
                    self._check_error(client, output.error or "")
                case "abort" if output.stop_reason is None:
                    was_paused = any(order.mode == "abort" for order in plan.orders)
                    was_aborted = request.request_id in front_end.aborted_ids
                    demand(was_paused or was_aborted, f"{name} was aborted by nobody")
                case "abort":
                    self._check_timeout(client, str(output.stop_reason))

    def _check_error(self, client: Client, error: str) -> None:
        """Whoever spoils nothing ends with "error" only after three failures in a row, alone."""
        poison = client.request.poison
        if "died while it ran" in error:
            record = self.front_end.ledger.records[client.request.number]
            wanted = 4 if record.was_killed else 3
            num_strikes = max(each.num_strikes for each in record.sequences)
            demand(
                num_strikes >= wanted and record.was_alone and record.was_running,
                f"request {client.request.number} ends with {error!r} after {num_strikes} "
                f"failures{'' if record.was_alone else ', in company'}",
            )
            if self.plan.has_only_poison:
                demand(
                    poison is not None and poison.is_deadly,
                    f"request {client.request.number} ends because of another: {error}",
                )
        else:
            is_own = poison is not None and not poison.is_deadly
            demand(is_own, f"request {client.request.number} is innocent: {error}")

    def _check_timeout(self, client: Client, missed: str) -> None:
        demand(missed in ("timeout", "queue_timeout", "ttft_timeout"), f"stop reason {missed}")
        limits = [self.plan.limits, *(o.limits for o in self.plan.orders if o.limits)]
        own_s = getattr(client.request, missed)
        defaults = [getattr(each, f"default_{missed}_s") for each in limits]
        given = [own_s] if own_s is not None else [each for each in defaults if each is not None]
        name = f"request {client.request.number}"
        demand(bool(given), f"{name} ended by a {missed} that it does not have")
        demand(client.ended_s is not None, f"{name} has no end")
        ended_by = [(i, o) for i, o in client.last.items() if o.stop_reason == missed]
        for index, output in ended_by:
            if missed == "queue_timeout":
                has_started = (request_key := (client.request.number, index)) in (
                    self.front_end.ledger.announced
                )
                demand(not has_started, f"{request_key} has started, and ends by a {missed}")
            elif missed == "ttft_timeout":
                demand(not output.token_ids, f"{name} has tokens, and ends by a {missed}")
        lasted_s = (client.ended_s or 0.0) - client.arrival_s
        demand(lasted_s >= min(given) - EPSILON_S, f"{name} ended before its {missed}")

    def _check_reports(self) -> None:
        reported = Counter(record.request_id for record in self.front_end.watcher.finished)
        right = Counter(client.request.request_id for client in self.clients)
        for client in self.clients:
            if client.ending == "dead" and not client.was_admitted:
                # Refused at the door: there is no engine to measure.
                right[client.request.request_id] -= 1
        demand(reported == +right, f"reported were {dict(reported)}, right is {dict(+right)}")

    def _check_giving_up(self) -> None:
        """There is no next engine if it was closed, or too many have failed in too short a time."""
        failures_s, restarts = self.front_end.ledger.failures_s, self.plan.restarts
        most = max(
            (
                sum(end_s - restarts.window_s <= each <= end_s for each in failures_s)
                for end_s in failures_s
            ),
            default=0,
        )
        was_closed = any(order.kind == "close" for order in self.plan.orders)
        if most > restarts.max_restarts:
            demand(self.front_end.link.is_dead, f"{most} engines failed, and there is another")
        elif not was_closed:
            demand(not self.front_end.link.is_dead, f"given up after {most} failures")

    def _check_poison(self) -> None:
        """A poisonous request ends three engines at most, and nobody else.

        One more if there are several: one that was cleared, and is taken back for the next one's
        turn, may be in a step already.
        """
        ledger, plan = self.front_end.ledger, self.plan
        if not plan.has_only_poison:
            return
        num_deadly = sum(
            request.poison is not None and request.poison.is_deadly for request in plan.requests
        )
        limit = 3 if num_deadly == 1 else 4
        num_poisonings = 0
        for number, record in ledger.records.items():
            num_poisonings += record.num_poisonings
            demand(
                record.num_poisonings <= limit,
                f"request {number} has ended {record.num_poisonings} engines",
            )
        demand(
            len(ledger.failures_s) <= num_poisonings,
            f"{len(ledger.failures_s)} engines were replaced, {num_poisonings} were poisoned",
        )
