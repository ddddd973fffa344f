"""The kit's parts: the scripted engine, the probe, the loop runner, the texts, the commands."""

import asyncio
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from labkit import cores
from labkit.feedback import TEXTS, Failure, block, load_everything, load_texts, timeline
from labkit.lab import Lab
from labkit.lab03_checks import undisturbed
from labkit.learner import Learner
from labkit.looprunner import Blocked, Hung, LoopRunner, NeverAwaited, StrayTask, Unretrieved
from labkit.probe import Probe
from labkit.script import Script
from labkit.scripted import EngineFault, Fail, Hang, Pause, Say, ScriptedEngine, Start, Wait
from labkit.stacks import Owners
from labkit.stand_ins import Stuck, with_stopped_clock
from labkit.timing import Patience
from learner import LABS, copy_lab, environment, run
from variant import LAB02, labs
from verdicts import load_tests


def on_a_loop(test):
    """Run an async test; the labs' tests need no plugin for that, as the labs do not."""

    @functools.wraps(test)
    def run_it() -> None:
        asyncio.run(test())

    return run_it


# --- the scripted engine


def texts(outputs) -> list[str]:
    return [output.outputs[0].text for output in outputs]


async def read(stream) -> list:
    return [output async for output in stream]


@on_a_loop
async def test_outputs_are_cumulative_and_only_the_last_is_finished():
    engine = ScriptedEngine({"a": [Say("x"), Say(""), Say("yz")]})
    outputs = await read(engine.generate("a", None, "r"))
    assert texts(outputs) == ["x", "x", "xyz"]
    assert [output.finished for output in outputs] == [False, False, True]
    assert [output.outputs[0].finish_reason for output in outputs] == [None, None, "stop"]


@on_a_loop
async def test_a_script_that_ends_in_an_error_has_no_finished_output():
    stream = ScriptedEngine({"a": [Say("x"), Fail(EngineFault("no"))]}).generate("a", None, "r")
    assert not (await anext(stream)).finished
    with pytest.raises(EngineFault):
        await anext(stream)


@on_a_loop
async def test_a_gate_holds_a_request_until_it_is_opened():
    engine = ScriptedEngine({"a": [Say("x"), Wait("go"), Say("y")]})
    stream = engine.generate("a", None, "r")
    await anext(stream)
    task = asyncio.ensure_future(anext(stream))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    engine.open("go")
    assert texts([await task]) == ["xy"]
    assert await read(stream) == []
    assert engine.num_live == 0


@on_a_loop
async def test_nothing_starts_before_it_is_iterated():
    engine = ScriptedEngine()
    stream = engine.generate("a", None, "r")
    assert engine.num_started == 0
    await stream.aclose()


@on_a_loop
async def test_abort_gives_one_last_output_with_what_there_is():
    engine = ScriptedEngine({"a": [Say("x"), Hang()]})
    stream = engine.generate("a", None, "r")
    await anext(stream)
    await engine.abort("r")
    [last] = await read(stream)
    assert (last.outputs[0].text, last.outputs[0].finish_reason, last.finished) == (
        "x",
        "abort",
        True,
    )


@on_a_loop
async def test_the_metrics_tell_when_a_request_left_the_queue():
    scripts = {
        "with": [Pause(0.002), Start(), Pause(0.002), Say("x")],
        "without": [Pause(0.002), Say("x")],
        "never": [Hang()],
    }
    engine = ScriptedEngine(scripts)
    waited = {}
    for prompt in scripts:
        task = asyncio.create_task(read(engine.generate(prompt, None, prompt)))
        if prompt == "never":
            await asyncio.sleep(0)
            await engine.abort(prompt)
        [output] = await task
        waited[prompt] = output.metrics.scheduled_ts
        if prompt != "never":
            assert output.metrics.scheduled_ts - output.metrics.queued_ts >= 0.002
    assert waited["never"] == 0.0
    [output] = await read(ScriptedEngine(scripts, with_metrics=False).generate("with", None, "r"))
    assert output.metrics is None


@on_a_loop
async def test_deltas_and_final_outputs_if_the_parameters_ask_for_them():
    from wheelpit import RequestOutputKind, SamplingParams

    engine = ScriptedEngine({"a": [Say("x"), Say("y")]})
    kinds = {RequestOutputKind.DELTA: ["x", "y"], RequestOutputKind.FINAL_ONLY: ["xy"]}
    for kind, expected in kinds.items():
        params = SamplingParams(output_kind=kind)
        assert texts(await read(engine.generate("a", params, "r"))) == expected


# --- the probe


@on_a_loop
async def test_the_probe_tells_how_each_request_ended():
    scripts = {"fail": [Say("x"), Fail(EngineFault("no"))], "hang": [Say("x"), Hang()]}
    probe = Probe(ScriptedEngine(scripts))
    await read(probe.generate("fine", None, "1"))
    with pytest.raises(EngineFault):
        await read(probe.generate("fail", None, "2"))
    left = probe.generate("hang", None, "3")
    await anext(left)
    await left.aclose()
    task = asyncio.create_task(read(probe.generate("hang", None, "4")))
    while len(probe.calls) < 4 or not probe.calls[3].outputs:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    probe.generate("never read", None, "5")
    assert [call.ending for call in probe.calls] == [
        "finished",
        "error",
        "closed",
        "cancelled",
        None,
    ]
    assert probe.calls[4].loop is None
    assert await probe.wait_idle()
    assert probe.peak == 1


@on_a_loop
async def test_the_barrier_lets_requests_pass_that_are_live_together():
    probe = Probe(ScriptedEngine(), barrier=3)
    await asyncio.gather(*(read(probe.generate(str(n), None, str(n))) for n in range(3)))
    assert probe.peak == 3
    rows = timeline(probe.calls, probe.num_events)[1:]
    assert len({row.index("|") for row in rows}) == 1


@on_a_loop
async def test_the_barrier_gives_up_on_requests_that_come_one_by_one():
    probe = Probe(ScriptedEngine(), barrier=2)
    for number in range(3):
        await read(probe.generate("a", None, str(number)))
    assert probe.peak == 1


@on_a_loop
async def test_a_wrong_call_is_answered_as_the_real_engine_would():
    with pytest.raises(TypeError, match=r"AsyncLLMEngine.generate\(\) missing 1 required"):
        Probe(ScriptedEngine()).generate("a", None)


# --- the loop runner; the functions of this file play the learner


@pytest.fixture
def runner():
    runner = LoopRunner(Owners(__file__, (str(LABS / "labkit"),)))
    yield runner
    runner.close()


def line_of(text: str) -> int:
    """Return the number of the one line of this file that ends so."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [number] = [number for number, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    return number


def test_results_and_exceptions_come_out(runner):
    async def good():
        return 7

    async def bad():
        raise KeyError("x")

    async def leaves():
        sys.exit(3)

    assert runner.run(good()) == 7
    with pytest.raises(KeyError):
        runner.run(bad())
    with pytest.raises(SystemExit):
        runner.run(leaves())
    assert runner.run(good()) == 7


def test_a_hang_is_found_through_tasks_gathers_and_generators(runner):
    async def stream():
        yield 1
        await asyncio.get_running_loop().create_future()  # hangs here

    async def reader():
        async for _ in stream():
            pass

    async def main():
        await asyncio.gather(asyncio.sleep(0), asyncio.create_task(reader()))

    with pytest.raises(Hung) as hung:
        runner.run(main(), limit_s=0.3)
    assert hung.value.place is not None
    assert hung.value.place.line == line_of("hangs here")


def test_a_wait_with_a_limit_of_its_own_is_not_a_hang(runner):
    async def wait_idle():
        patience = Patience(0.4)
        while not patience.is_over():
            await asyncio.sleep(0.005)
        return "said by whoever waits"

    async def main():
        return await wait_idle()

    assert runner.run(main(), limit_s=0.1) == "said by whoever waits"


def test_time_sleep_on_the_loop_is_noticed_however_short(runner):
    async def main():
        time.sleep(0.002)  # noqa: ASYNC251  # sleeps here

    with pytest.raises(Blocked) as blocked:
        runner.run(main())
    assert blocked.value.place.line == line_of("sleeps here")
    assert blocked.value.values["ms"] == 2


def test_time_sleep_in_a_thread_is_fine(runner):
    async def main():
        await asyncio.to_thread(time.sleep, 0.002)

    runner.run(main())


def test_a_busy_loop_is_noticed_while_it_runs(runner):
    async def main():
        while runner._job.blocked is None:  # is busy here
            pass

    with pytest.raises(Blocked) as blocked:
        runner.run(main())
    assert abs(blocked.value.place.line - line_of("is busy here")) <= 1
    # Endless, if this machine takes so long to notice.
    assert blocked.value.values["ms"] >= 100 or blocked.value.values["is_endless"]


def test_blocking_calls_of_ours_are_nobodys_fault():
    """An engine that takes long to start blocks the loop, inside the learner's call."""
    runner = LoopRunner(Owners("/nowhere/starter.py", (str(LABS / "labkit"), __file__)))

    async def main():
        threading.Event().wait(0.3)
        return "started"

    assert runner.run(main()) == "started"
    runner.close()


STANDS = {
    # name: ((processor time used, is it runnable?) at each look, at fault?)
    "computes": ([(0.01, True), (0.06, True)], True),
    "waits in a call": ([(0.01, False), (0.01, False)], True),
    "waits for a core": ([(0.01, True), (0.01, True)], False),
    "gets a core now and then": ([(0.01, False), (0.012, False)], False),
    "on a system that cannot tell": ([(None, None), (None, None)], True),
}


@pytest.mark.parametrize("name", STANDS)
def test_who_only_waits_for_a_core_is_not_at_fault(monkeypatch, name):
    seen, is_at_fault = STANDS[name]
    looks = cores.Looks()
    for used_s, is_runnable in seen:
        monkeypatch.setattr(cores, "_used_s", lambda thread, used_s=used_s: used_s)
        monkeypatch.setattr(cores, "_is_runnable", lambda thread, so=is_runnable: so)
        last = looks.is_at_fault(threading.current_thread(), 0.0, much_s=0.05)
    assert last == is_at_fault


@pytest.mark.parametrize("computes", [True, False])
def test_threads_that_compute_are_told_from_those_that_wait(computes):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can tell")
    is_over = threading.Event()

    def work() -> None:
        while computes and not is_over.is_set():
            pass
        is_over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert cores.is_computing(thread) == computes
    finally:
        is_over.set()
        thread.join()


@on_a_loop
async def test_an_attempt_on_a_machine_that_paused_is_made_again():
    attempts = []

    async def attempt() -> None:
        attempts.append(len(attempts))
        await asyncio.sleep(0.01)
        if len(attempts) < 3:
            time.sleep(0.05)  # noqa: ASYNC251
        await asyncio.sleep(0.01)

    await undisturbed(attempt, 0.05)
    assert len(attempts) >= 3


def test_a_slow_import_is_nobodys_fault(runner, tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import threading\nthreading.Event().wait(0.4)\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def main():
        import slow_to_import

        return slow_to_import.__name__

    assert runner.run(main()) == "slow_to_import"


def test_a_loop_that_never_comes_back_is_replaced(runner):
    async def endless():
        threading.Lock().acquire()
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()  # never comes back

    async def good():
        return 7

    with pytest.raises(Blocked) as blocked:
        runner.run(endless(), limit_s=0.3)
    assert blocked.value.values["is_endless"]
    assert blocked.value.place.line == line_of("never comes back")
    assert runner.num_lost() == 1
    assert runner.run(good()) == 7


def test_a_forgotten_await_is_named_with_its_line(runner):
    async def step():
        pass

    async def main():
        step()  # is forgotten

    with pytest.raises(NeverAwaited) as forgotten:
        runner.run(main())
    assert forgotten.value.place.line == line_of("is forgotten")
    assert forgotten.value.values["name"].endswith("step")


def test_what_an_earlier_run_dropped_is_not_held_against_the_next(runner):
    async def step():
        pass

    async def drops():
        kept = step()
        raise KeyError(kept)

    async def good():
        return 7

    with pytest.raises(KeyError):
        runner.run(drops())
    assert runner.run(good()) == 7


def test_a_task_left_behind_is_named(runner):
    async def worker():
        await asyncio.sleep(3600)  # still works

    async def main():
        asyncio.create_task(worker())  # noqa: RUF006

    with pytest.raises(StrayTask) as stray:
        runner.run(main())
    assert stray.value.place.line == line_of("still works")


def test_an_exception_that_nobody_took_is_told(runner):
    async def worker():
        raise KeyError("lost")

    async def main():
        asyncio.create_task(worker())  # noqa: RUF006
        await asyncio.sleep(0.01)

    with pytest.raises(Unretrieved, match="lost"):
        runner.run(main())


def test_the_line_that_returned_is_known(runner):
    async def main():
        if threading.active_count():
            return 1  # returns here
        return 2

    runner.run(main())
    assert runner.returned_at["main"] == line_of("returns here")


def test_time_is_put_back(runner):
    real = runner._real_sleep
    runner.close()
    assert time.sleep is real


# --- the learner's file

CLASS = """
class Monitor:
    def __init__(self):
        '''Begin.'''
        {first}

    def snapshot(self):
        {second}
"""
OPEN = 'raise NotImplementedError("TODO E: write it")'


@pytest.mark.parametrize(
    ("first", "second", "line"), [(OPEN, OPEN, 5), ("pass", OPEN, None), (OPEN, "pass", None)]
)
def test_a_class_is_open_while_all_of_its_methods_are(tmp_path, first, second, line):
    path = tmp_path / "starter.py"
    path.write_text(CLASS.format(first=first, second=second))
    learner = Learner(path)
    assert learner.open_line("Monitor") == line
    assert learner.line_of("Monitor") == 2
    assert learner.function("Monitor").__name__ == "Monitor"


def test_the_files_annotations_are_objects_as_in_any_other_file(tmp_path):
    """FastAPI looks at them; the kit's own `from __future__ import annotations` must not count."""
    path = tmp_path / "starter.py"
    path.write_text("def f(x: int): pass\n")
    assert Learner(path).function("f").__annotations__ == {"x": int}


# --- the stopped clock


class FileOf:
    """Stands for a Learner whose file is this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def copy(self):
        values: dict = {}
        exec(self._text, values)
        return values

    def function(self, name, module):
        return module[name]


@pytest.mark.parametrize(
    "clock",
    [
        "from time import time_ns as now",
        "from time import perf_counter as now",
        "import time; now = time.monotonic",
        "import datetime; now = datetime.datetime.now",
        "from datetime import datetime; now = datetime.utcnow",
    ],
)
def test_every_clock_stops(clock):
    learner = FileOf(f"{clock}\ndef make(): return str(now())")
    before = time.time()
    made = with_stopped_clock(learner, "make", lambda make: {make() for _ in range(50)}, 5.0)
    assert len(made) == 1
    assert time.time() >= before


def test_whoever_waits_for_the_clock_is_left_behind():
    learner = FileOf(
        "import time\ndef make():\n    now = time.time()\n    while time.time() == now: pass"
    )
    with pytest.raises(Stuck):
        with_stopped_clock(learner, "make", lambda make: make(), 0.2)


# --- the script


def test_a_script_that_hangs_is_stopped_and_said_to(tmp_path, monkeypatch):
    path = tmp_path / "starter.py"
    path.write_text("import time\nprint('Processing...')\ntime.sleep(3600)\n")
    monkeypatch.setenv("LAB_TARGET", str(path))
    tests = load_tests(LAB02)
    lab = Lab(tests)
    lab.kept["script"] = Script(path, limit_s=1.0)
    with pytest.raises(Failure) as failure:
        tests.TestScript().test_ends_by_itself_with_status_0(lab)
    lab.close()
    assert failure.value.code == "L2-SCRIPT-HANG"
    assert failure.value.shown["last line"] == "Processing..."


def test_a_script_that_nobody_waits_for_is_killed(tmp_path):
    path = tmp_path / "starter.py"
    path.write_text("import time\ntime.sleep(3600)\n")
    script = Script(path, limit_s=60.0)
    script.kill()
    assert script._process.returncode != 0


# --- the texts

NUM_TODOS = {"lab01": 4, "lab02": 6, "lab03": 5}


def test_every_code_has_a_sentence_and_every_sentence_is_used():
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in [*(LABS / "labkit").glob("*.py"), *LABS.glob("lab*/test_lab.py")]
    )
    raised = set(re.findall(r'"((?:L\d|LAB)-[A-Z0-9]+(?:-[A-Z0-9]+)?)"', sources))
    everything = load_everything()
    known = {code for section in everything.values() for code in section["codes"]}
    from_errors = {
        excuse["code"] for section in everything.values() for excuse in section.get("excuse", ())
    }
    assert raised | from_errors == known


@pytest.mark.parametrize(("lab", "num_todos"), NUM_TODOS.items())
def test_each_todo_has_three_hints_and_none_gives_the_code_away(lab, num_todos):
    stages = [stage for stage in load_texts(lab).stages if stage.function is not None]
    assert len(stages) == num_todos
    solution = {line.strip() for line in (labs()[lab] / "solution.py").read_text().splitlines()}
    for stage in stages:
        assert len(stage.hints) == 3, stage.id
        assert "..." in stage.hints[2], stage.id
        code = [line.split("#")[0].strip() for line in stage.hints[2].splitlines()]
        given = [line for line in code if line.startswith("return ") and line in solution]
        assert not given, stage.id


def test_the_texts_are_ascii():
    assert len(TEXTS) == len(NUM_TODOS)
    for path in TEXTS:
        assert path.read_text(encoding="utf-8").isascii(), path.name


def test_a_block_is_ascii_and_fits_the_screen():
    texts_ = load_texts("lab02")
    failure = Failure("L2-4A-ADDED", {"you returned": "\u00e9" * 300, "wanted": "x"})
    shown = block(
        failure, texts_.stage("4a"), texts_, "starter.py, line 1", "python -m labkit.hint 4a"
    )
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= 80


# --- the commands


def test_hints_come_one_step_at_a_time(tmp_path):
    folder = copy_lab(tmp_path)
    outs = [run(folder, "-m", "labkit.hint", "4a", str(step)).out for step in (1, 2, 3)]
    assert "python -m labkit.hint 4a 2" in outs[0]
    assert "python -m labkit.hint 4a 3" in outs[1]
    assert "solution.py has one right answer" in outs[2]
    assert "\n    async for output in stream:\n" in outs[2]
    assert run(folder, "-m", "labkit.hint", "L2-4A-FIRST").out.startswith("you stopped after")
    for wrong in (["9"], ["4a", "4"], []):
        done = run(folder, "-m", "labkit.hint", *wrong)
        assert (done.status, done.err) == (2, "")
        assert "TODO" in done.out


def test_the_check_says_what_is_missing(tmp_path):
    """An interpreter without site-packages has neither pytest nor Wheelpit's needs."""
    folder = copy_lab(tmp_path)
    done = run(folder, "-S", "-m", "labkit.check")
    assert (done.status, done.err) == (1, "")
    assert "[FAIL] pytest: not installed; in the lab's folder: pip install -r" in done.out


def test_an_engine_that_is_not_installed_is_a_sentence(tmp_path):
    folder = copy_lab(tmp_path)
    done = run(folder, "-S", "-c", "import labkit.backend")
    last = done.err.splitlines()[-1]
    assert re.match(r"ImportError: cannot import AsyncLLMEngine: \w+ is not installed in ", last)
    assert last.endswith("pip install -r requirements.txt")


def test_without_an_engine_pytest_says_so_in_a_line(tmp_path):
    """PYTHONPATH has pytest and all else, but Wheelpit only as an editable install, unread."""
    folder = copy_lab(tmp_path)
    needs = str(Path(pytest.__file__).resolve().parents[1])
    done = run(folder, "-S", "-m", "pytest", "test_lab.py", PYTHONPATH=needs)
    assert done.out == ""
    [line] = done.err.strip().splitlines()
    assert line.startswith("ERROR: cannot import AsyncLLMEngine: wheelpit is not installed in ")


def test_without_an_install_the_source_tree_around_is_used():
    """PYTHONPATH has what Wheelpit needs, but no .pth file is read there: no editable install."""
    needs = str(Path(pytest.__file__).resolve().parents[1])
    code = "from labkit import backend; print(sys.modules['wheelpit'].__file__)"
    done = run(LAB02.parent, "-S", "-c", f"import sys; {code}", PYTHONPATH=needs)
    assert Path(done.out.strip()).is_relative_to(LABS.parent / "src"), done.err


def test_watch_grades_again_when_the_file_is_saved(tmp_path):
    folder = copy_lab(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit.watch", "-k", "todo2"],
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    # A hang ends here, not in the test's own timeout.
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        assert until(process.stdout, "Waiting for starter.py").count("[2 open]") == 1
        starter = folder / "starter.py"
        text = starter.read_text(encoding="utf-8")
        code = 'return f"{prefix}-{next(_numbers)}"'
        text = text.replace(
            'raise NotImplementedError("TODO 2: return an id that no other request has")', code
        )
        starter.write_text(
            f"import itertools\n{text}\n_numbers = itertools.count()\n", encoding="utf-8"
        )
        assert until(process.stdout, "Waiting for starter.py").count("[2 ok]") == 1
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 0
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def until(lines, text: str) -> str:
    """Return all lines up to the one with the text."""
    read = ""
    for line in lines:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} never came, but: {read}")
