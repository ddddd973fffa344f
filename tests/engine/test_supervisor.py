"""The supervisor with engines that do what a test tells them: who is blamed, who waits for whom."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes import ManualClock, ManualTimers
from wheelpit.config import SchedulerConfig
from wheelpit.engine.admission import Admission, Limits
from wheelpit.engine.messages import (
    Abort,
    AddRequest,
    Call,
    EngineStats,
    Ready,
    StepBegins,
    StepOutput,
    TokenOutput,
)
from wheelpit.engine.request_book import OVERDUE_S, RequestBook
from wheelpit.engine.request_state import RequestState
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.engine.supervisor import (
    HEALTHY_STEPS,
    LONG_STEP_SLACK,
    MIN_LOADING_S,
    UNKNOWN_TOKEN_S,
    EngineState,
    Supervisor,
)
from wheelpit.errors import EngineDeadError
from wheelpit.request import SamplingParams
from wheelpit.scheduling.deadlines import Deadlines

READY = Ready("float32", "cpu", 64, 16, 8, 64, 256)


class ToldEngine:
    """Keeps what it is sent; says what it is told to say."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.is_killed = False
        self._started: list[str] = []

    def send(self, message) -> None:
        self.sent.append(message)

    def connect(self, on_message, on_end) -> None:
        self.say, self.end = on_message, on_end

    def kill(self) -> None:
        self.is_killed = True

    @property
    def added(self) -> list[str]:
        """The sequences that it was sent, without those it was to abort."""
        aborted = {i for each in self.sent if isinstance(each, Abort) for i in each.request_ids}
        names = [each.request_id for each in self.sent if isinstance(each, AddRequest)]
        return [name for name in names if name not in aborted]

    def begin(self, *started: str) -> None:
        """Begin a step that starts these."""
        self._started = list(started)
        self.say(StepBegins(len(started), list(started)))

    def give(self, *names: str, **given) -> None:
        """Finish a step that brings a token for each of these."""
        started, self._started = self._started, []
        outputs = [TokenOutput(name, [7], **given) for name in names]
        self.say(StepOutput(outputs, EngineStats(), started))


class Front:
    """A supervisor with its book, in virtual time."""

    def __init__(self, **settings) -> None:
        self.clock = ManualClock(100.0)
        self.timers = ManualTimers(self.clock)
        self.admission = Admission(Limits(), SchedulerConfig(max_num_seqs=8))
        self.book = RequestBook(self.admission, self.clock, [], self.timers)
        self.engines: list[ToldEngine] = []
        self.deaths: list[BaseException] = []
        self.supervisor = Supervisor(
            self.book,
            self.launch,
            self.clock,
            self.timers,
            RestartSettings(**{"stall_timeout_s": 4.0, "max_restarts": 50, **settings}),
            self.deaths.append,
        )
        self.supervisor.adopt(self.launch(), 1.0)

    def launch(self) -> ToldEngine:
        self.engines.append(ToldEngine())
        return self.engines[-1]

    @property
    def engine(self) -> ToldEngine:
        return self.engines[-1]

    def submit(self, name: str, n: int = 1, **deadlines: float) -> RequestState:
        """One that has sequences name0, name1, ..."""
        now = self.clock.now
        reservation = self.admission.reserve(
            name, now, num_tokens=3, num_sequences=n, deadlines=Deadlines(**deadlines)
        )
        params = SamplingParams(n=n, max_tokens=50)
        messages = [
            AddRequest(f"{name}{i}", [5, 6, 7], params, 50, 0, deadlines=reservation.deadlines)
            for i in range(n)
        ]
        state = RequestState(reservation, None, messages, params, None)
        self.book.add(state)
        return state

    def crash(self, *, was_killed: bool = False) -> None:
        """The engine dies, and the next one comes up."""
        self.engine.end("exited with status 1", was_killed)
        self.start_next()

    def start_next(self) -> None:
        self.wait_until(lambda: self.supervisor.state is EngineState.LOADING)
        self.engine.say(READY)

    def wait_until(self, holds: Callable[[], bool], limit_s: float = 60.0) -> None:
        for _ in range(int(limit_s * 10)):
            if holds():
                return
            self.timers.advance(0.1)
        pytest.fail("it never holds")


def ending(state: RequestState) -> list[str | None]:
    return [completion.finish_reason for completion in state.completions]


def test_the_tokens_of_one_completion_do_not_clear_another_of_the_same_request():
    """One of n = 2 ended every engine, and the other got a token from each before that. Strikes
    were counted for the request as a whole: there never were two in a row, and the engine was
    given up because of it, with everybody's requests.
    """
    front = Front(max_restarts=3)
    innocent, poison = front.submit("a"), front.submit("b", n=2)
    for num_engines in (1, 2, 3):
        assert len(front.engines) == num_engines
        front.engine.begin("b0")
        front.engine.give("b0")
        front.engine.begin("b1")
        front.crash()
    assert ending(poison) == ["error", "error"]
    assert poison.completions[0].token_ids == [7, 7, 7]
    assert front.engine.added == ["a0"]
    assert not innocent.is_finished


def test_a_suspect_is_cleared_by_a_token_of_the_completion_under_suspicion():
    front = Front()
    front.submit("a")
    suspect = front.submit("b", n=2)
    for _ in range(2):
        front.engine.begin("b0")
        front.engine.give("b0")
        front.engine.begin("b1")
        front.crash()
    assert front.supervisor.suspect is suspect
    front.engine.begin("b0", "b1")
    front.engine.give("b0")
    assert front.engine.added == ["b0", "b1"]
    front.engine.give("b1")
    assert front.supervisor.suspect is None
    assert front.engine.added == ["b0", "b1", "a0"]


def test_an_engine_that_is_replaced_on_purpose_is_no_strike():
    """Two restarts by hand during a long prefill put everybody who ran under suspicion, and the
    first crash after that ended one of them with "error".
    """
    front = Front()
    first, second = front.submit("a"), front.submit("b")
    for _ in range(3):
        front.engine.begin("a0", "b0")
        front.supervisor.restart("a new driver")
        front.start_next()
    assert front.supervisor.suspect is None
    front.engine.begin("a0", "b0")
    front.crash()
    assert front.engine.added == ["a0", "b0"]
    assert ending(first) == ending(second) == [None]


def suspect_two(front: Front) -> tuple[RequestState, RequestState]:
    """Two who ran in two crashes in a row; "bystander" waits."""
    states = front.submit("a"), front.submit("b")
    front.submit("bystander")
    for _ in range(2):
        front.engine.begin("a0", "b0")
        front.crash()
    return states


def test_the_next_suspect_is_as_alone_as_the_first():
    """The first suspect was cleared and ran on beside the second. When it ended the engine after
    all, with a later token, the second was blamed: it was the one under suspicion.
    """
    front = Front()
    poison, innocent = suspect_two(front)
    front.engine.begin("a0")
    front.engine.give("a0")
    assert front.engine.added == ["b0"]
    front.engine.give("a0")  # it had not heard of the abort
    front.engine.begin("b0")
    front.engine.give("b0")
    assert front.supervisor.suspect is None
    resent = [each for each in front.engine.sent if isinstance(each, AddRequest)][-2:]
    assert [each.request_id for each in resent] == ["a0", "bystander0"]
    assert resent[0].output_token_ids == poison.completions[0].token_ids == [7, 7]
    front.engine.begin("a0")
    front.crash()
    assert ending(innocent) == ending(poison) == [None]


def test_a_suspect_that_was_cleared_and_taken_back_starts_afresh():
    """Its token was forgotten with the engine's other work: its next crash counted as the third."""
    front = Front()
    first, second = suspect_two(front)
    front.engine.begin("a0")
    front.engine.give("a0")
    front.engine.begin("b0")
    front.engine.give("b0")
    front.engine.begin("a0")
    front.crash()
    assert (first.num_strikes, second.num_strikes) == (1, 1)
    assert front.supervisor.suspect is None


def test_only_a_token_clears_a_suspect():
    """An engine that died before a suspect ran there cleared it: it went on in company, and two
    requests that each end every engine could take turns at that.
    """
    front = Front()
    first, second = suspect_two(front)
    front.crash()
    assert front.supervisor.suspect is first
    front.engine.give()
    assert front.engine.added == ["a0"]
    front.engine.begin("a0")
    front.crash()
    assert ending(first) == ["error"]
    assert front.engine.added == ["b0"]
    assert ending(second) == [None]


def test_who_did_not_run_on_the_last_engine_is_not_blamed_for_its_end():
    front = Front()
    first, _ = suspect_two(front)
    front.engine.begin("a0")
    front.crash(was_killed=True)
    assert first.num_strikes == 3
    front.crash()
    assert ending(first) == [None]


def test_a_suspect_that_was_aborted_is_not_blamed_for_the_next_crash():
    """Its abort was on its way when the engine died: it ended a second time, with "error"."""
    front = Front()
    first, second = suspect_two(front)
    front.engine.begin("a0")
    front.crash(was_killed=True)
    assert front.supervisor.suspect is first
    assert first.num_strikes == 3
    front.book.abort(first)
    front.crash()
    assert ending(first) == ["abort"]
    assert front.supervisor.suspect is second
    assert front.engine.added == ["b0"]


def test_nobody_waits_for_a_suspect_that_was_aborted_while_the_engine_hung():
    """It hung with a suspect alone, whose client then left. So it had no work, and nobody looked;
    and everybody else waited for the suspect to get a token.
    """
    front = Front()
    states = suspect_two(front)
    front.engine.begin("a0")
    for state in states:
        front.book.abort(state)
    front.wait_until(lambda: len(front.engines) == 4)
    front.engine.say(READY)
    assert front.engine.added == ["bystander0"]


def test_nobody_waits_for_a_suspect_whose_time_is_over_when_its_turn_comes():
    front = Front()
    states = suspect_two(front)
    for state in states:
        state.reservation.deadlines = Deadlines(total_s=front.clock.now + 1.0)
    front.engine.end("exited with status 1", False)
    front.wait_until(lambda: front.supervisor.state is EngineState.LOADING)
    front.clock.advance(1.0)  # no timer has rung yet
    front.engine.say(READY)
    assert [ending(state) for state in states] == [["abort"], ["abort"]]
    assert front.engine.added == ["bystander0"]


def test_a_call_that_is_not_answered_is_work_too():
    """An engine hung with nothing but a call to answer: nobody looked, and the caller (of
    `reset_prefix_cache`, or of `pause_generation`) waited for ever.
    """
    front = Front()
    answers: list[object] = []
    front.supervisor.call(Call(1, "reset_prefix_cache"), answers.append)
    front.timers.advance(3.9)
    assert len(front.engines) == 1
    front.start_next()
    assert front.engine.sent == [Call(1, "reset_prefix_cache")]


def test_an_engine_has_the_whole_timeout_from_when_it_has_work():
    """The time counted from when somebody last looked at the idle engine, up to a quarter of the
    timeout before there was anything to do.
    """
    front = Front()
    front.timers.advance(0.9)
    front.submit("a")
    front.timers.advance(3.9)
    assert len(front.engines) == 1
    assert not front.supervisor.health().is_stalled
    front.timers.advance(1.2)
    assert len(front.engines) == 2


def test_health_is_good_right_after_a_long_idle_time():
    """A process that had stood still, idle, called its engine stalled as soon as it had work."""
    front = Front()
    front.clock.advance(100.0)
    front.submit("a")
    assert not front.supervisor.health().is_stalled


def test_who_has_started_does_not_miss_the_queues_deadline_in_a_long_step():
    """A long first step was announced, and in it the queue's deadline passed: the front end knew of
    nobody who had started until the step's end, and ended the request as never started. If the
    engine died in that step, the next one got the deadline again.
    """
    front = Front()
    state = front.submit("a", queue_s=front.clock.now + 1.0)
    front.engine.begin("a0")
    assert (front.admission.num_queued, front.admission.num_running) == (0, 1)
    front.timers.advance(2.0)
    assert ending(state) == [None]
    front.crash()
    resent = front.engine.sent[-1]
    assert isinstance(resent, AddRequest)
    assert resent.deadlines == Deadlines()


@pytest.mark.parametrize("timeout_s", [n / 100 for n in range(1, 60)])
def test_no_deadline_is_lost_to_rounding(timeout_s):
    """moment + 0.25 had come, but moment had not been 0.25 s ago: so neither was the request ended
    nor the timer set again. Sums are rounded worst where they cross a power of two.
    """
    front = Front()
    front.clock.now = 1023.7
    state = front.submit("a", total_s=1023.7 + timeout_s)
    front.timers.advance(timeout_s + OVERDUE_S + 0.01)
    assert ending(state) == ["abort"]


def test_one_timer_watches_over_however_many_engines():
    """The timer that watched an engine load was not cancelled when that was ready: each restart
    left one more that rang for ever, even after the end.
    """
    front = Front()
    for _ in range(5):
        front.crash()
        front.submit("a")
        front.engine.begin("a0")
        front.engine.give("a0", finish_reason="stop")
        front.timers.advance(1.0)
        front.supervisor.restart("a test")
        front.start_next()
        assert len(front.timers) == 1
    front.supervisor.close(EngineDeadError("the test is over"))
    front.timers.advance(60.0)
    assert len(front.timers) == 0


def test_engines_that_fail_soon_are_started_later_and_later():
    """At once after the first failure, which may be a mishap; then after 0.2, 0.4 ... 10 s."""
    front = Front(max_restarts=100)
    waits_s = []
    for _ in range(9):
        front.engine.end("exited with status 1", False)
        died_s, num_engines = front.clock.now, len(front.engines)
        while len(front.engines) == num_engines:
            front.timers.advance(0.05)
        waits_s.append(round(front.clock.now - died_s, 1))
        front.engine.say(READY)
    assert waits_s[0] <= 0.1
    assert waits_s[1:] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    # Twenty steps later all is forgiven.
    front.submit("a")
    for _ in range(HEALTHY_STEPS):
        front.engine.give("a0")
    front.engine.end("exited with status 1", False)
    front.timers.advance(0.05)
    assert front.supervisor.state is EngineState.LOADING


def test_a_long_step_that_was_announced_is_no_hang():
    front = Front()
    front.submit("a")
    front.engine.say(StepBegins(2000, ["a0"]))
    allowed_s = 4.0 + LONG_STEP_SLACK * 2000 * UNKNOWN_TOKEN_S
    front.timers.advance(allowed_s - 0.1)
    assert len(front.engines) == 1
    assert not front.supervisor.health().is_stalled
    # But not for ever.
    front.timers.advance(1.2)
    assert len(front.engines) == 2


def test_a_slow_start_is_no_hang_until_it_is_ten_times_as_slow():
    """The first took a second: another has the least that each has, a minute."""
    front = Front()
    front.submit("a")
    front.engine.end("exited with status 1", False)
    front.timers.advance(MIN_LOADING_S - 1.0)
    assert (len(front.engines), front.supervisor.state) == (2, EngineState.LOADING)
    front.timers.advance(2.5)
    assert len(front.engines) == 3
    assert front.engines[1].is_killed
