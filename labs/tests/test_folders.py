"""A learner's run is the same wherever the folder is, whatever pytest settings are around it.

And it always ends: with the learner's line, also when their code never would.
"""

import re
import textwrap
from pathlib import Path

import pytest
from learner import copy_lab, grade, run
from variant import HERE, LAB02, LABS, load, merged

SOLUTION = (LAB02 / "solution.py").read_text(encoding="utf-8")

TODO_4A_WRONG = """
async def collect_output(stream):
    async for output in stream:
        return output.outputs[0].text
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    return copy_lab(tmp_path)


def write_starter(folder: Path, text: str) -> None:
    (folder / "starter.py").write_text(text, encoding="utf-8")


def answer(folder: Path, function: str) -> None:
    """Let the starter be the solution with another function."""
    variant = folder / "variant.py"
    variant.write_text('"""-"""\n' + textwrap.dedent(function), encoding="utf-8")
    write_starter(folder, merged(SOLUTION, variant))
    variant.unlink()


def test_in_the_clone_the_projects_own_settings_stay_away():
    done = grade(LAB02, "-k", "todo2")
    assert f"rootdir: {LABS}\n" in done.out
    assert "configfile: pytest.ini" in done.out
    assert done.states == {"2": "open"}


def test_in_another_project_with_strict_settings(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n"
        'addopts = "--strict-config --strict-markers"\n'
        'filterwarnings = ["error"]\n'
        'asyncio_mode = "auto"\n'
        "no_such_option = 1\n"
    )
    folder = copy_lab(tmp_path)
    answer(folder, TODO_4A_WRONG)
    done = grade(folder, "-v", "-k", "todo4a")
    assert done.codes == {"4a": "L2-4A-FIRST"}, done.out + done.err


def test_the_kit_beside_the_folder_is_found_as_well(tmp_path):
    """The layout of the clone, elsewhere, with an interpreter that knows of no clone."""
    folder = copy_lab(tmp_path)
    (folder / "labkit").rename(tmp_path / "labkit")
    (folder / "pytest.ini").unlink()
    done = grade(folder, "-v", "-k", "todo3")
    assert done.states == {"3": "open"}, done.out + done.err
    assert "TODO 1 is still open: starter.py, line " in run(folder, "starter.py").out
    # -S: without site-packages there is no clone to find labkit in.
    hint = run(folder, "-S", "../labkit", "hint", "3")
    assert "Still stuck? python ../labkit hint 3 2" in hint.out, hint.err


def test_all_labs_can_be_graded_in_one_run():
    done = run(LABS, "-m", "pytest", "lab02_online_serving", "-q", "-p", "no:cacheprovider")
    assert "[1 open] [2 open]" in done.out


def test_a_failure_is_a_short_block(folder):
    answer(folder, TODO_4A_WRONG)
    done = grade(folder, "-v", "-k", "todo4a")
    lines = done.out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("TODO 4a  "))
    place = 1 + (folder / "starter.py").read_text().splitlines().index(
        "        return output.outputs[0].text"
    )
    assert lines[start : start + 10] == [
        "TODO 4a  collect_output" + "[L2-4A-FIRST]".rjust(55),
        "  engine streams:   'Async' | 'Async io' | 'Async io' | 'Async io is fun'",
        "  you returned:     'Async'",
        "  wanted:           'Async io is fun'",
        "  why:              you stopped after the first partial output; the last one",
        "                    has the whole text. Read to the end, and return after the",
        "                    loop",
        f"  where:            starter.py, line {place}",
        "  more:             python -m labkit.hint 4a",
        "",
    ]
    assert lines[start + 10 : start + 12] == [
        "Lab 02: [4a FIX]",
        f"Next: TODO 4a, starter.py:{place}",
    ]
    assert done.report["processor_seconds"] < 3


def test_sequential_requests_are_drawn_as_a_staircase(folder):
    [variant] = [each for each in load("lab02", "wrong") if each.code == "L2-5-SEQUENTIAL"]
    write_starter(folder, merged(SOLUTION, variant.path))
    out = grade(folder, "-k", "todo5").out
    assert "only 1 of 3 requests was in flight at any time" in out
    rows = re.findall(r"^ +req-\d+ +\|( *)(#+) *\|$", out, re.M)
    assert len(rows) == 3
    ends = [(len(before), len(before) + len(bar)) for before, bar in rows]
    assert all(ends[place][1] <= ends[place + 1][0] for place in range(2)), out


UNLOADABLE = {
    "bracket": ("return text\n", "return text)\n", "LAB-SYNTAX", "(unmatched ')'): return text)"),
    "await": ("\ndef preview", "\nawait main()\n\ndef preview", "LAB-SYNTAX", "'await' outside"),
    "module": ("import time\n", "import time\nimport no_such\n", "LAB-IMPORT", "'no_such'"),
    "division": ("def preview", "1 / 0\n\ndef preview", "LAB-LOAD", "ZeroDivisionError"),
    "endless": ("def preview", "while True:\n    pass\n\ndef preview", "LAB-STUCK", "while True:"),
    "unguarded": (
        'if __name__ == "__main__":\n    with stop_at_open_todo():\n',
        "if True:\n    if True:\n",
        "LAB-UNGUARDED",
        'belongs under if __name__ == "__main__":',
    ),
}


def test_a_file_that_cannot_be_loaded_is_said_once(judge):
    verdicts = judge({name: SOLUTION.replace(*change[:2]) for name, change in UNLOADABLE.items()})
    for name, (_, _, code, said) in UNLOADABLE.items():
        verdict = verdicts[name]
        assert verdict["codes"] == {"1": code}, name
        assert said in " ".join(verdict["blocks"]["1"].split())
        assert list(verdict["states"].values()) == ["FIX"] + ["waits"] * 5


def test_a_file_that_is_slow_to_load_is_nobodys_fault(judge):
    slow = SOLUTION.replace("def preview", "time.sleep(0.4)\n\n\ndef preview")
    assert judge({"slow": slow})["slow"]["codes"] == {}


HALF_DONE = """
def generate_request_id(prefix="req"):
    print(prefix)
    raise NotImplementedError("TODO 2: return an id")
"""


def test_a_function_that_is_missing_or_half_done_is_named(judge):
    renamed = SOLUTION.replace("def generate_request_id", "def make_request_id")
    verdicts = judge({"renamed": renamed, "half": f"{SOLUTION}\n\n{HALF_DONE}"})
    assert verdicts["renamed"]["codes"] == {"2": "LAB-MISSING"}
    assert "no function generate_request_id" in verdicts["renamed"]["blocks"]["2"]
    assert verdicts["half"]["codes"] == {"2": "LAB-OPEN"}


def test_a_missing_file_is_named(folder):
    (folder / "starter.py").unlink()
    done = grade(folder)
    assert done.codes == {"1": "LAB-NOFILE"}


def test_a_stage_waits_for_one_that_was_not_selected(folder):
    answer(folder, TODO_4A_WRONG)
    done = grade(folder, "-v", "-k", "todo5")
    assert done.states == {"2": "ok", "3": "ok", "4a": "FIX", "5": "waits"}
    assert "Next: TODO 4a" in done.out


def test_the_engines_do_not_start_before_the_todos_pass(folder):
    answer(folder, TODO_4A_WRONG)
    done = grade(folder, "-v")
    assert done.states["live"] == done.states["script"] == "waits"
    assert done.report["processor_seconds"] < 3


ENDLESS = {
    "a loop without an await": (
        "async def collect_output(stream):\n    while True:\n        pass\n",
        "LAB-STUCK",
    ),
    "cancellation caught for ever": (
        "async def collect_output(stream):\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n",
        "LAB-HANG",
    ),
    "a thread that never ends": (
        "async def collect_output(stream):\n"
        "    import threading\n"
        "    await asyncio.to_thread(threading.Event().wait)\n",
        "LAB-HANG",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_named_and_the_run_ends(folder, name):
    """As a learner runs it: the process must end, with pytest's status, in spite of its threads."""
    function, code = ENDLESS[name]
    answer(folder, function)
    done = grade(folder, "-k", "todo4a")
    assert done.codes == {"4a": code}, done.out
    assert done.status == 1
    line = int(re.findall(r"Next: TODO 4a, starter.py:(\d+)", done.out)[0])
    text = (folder / "starter.py").read_text().splitlines()
    first = text.index("async def collect_output(stream):") + 1
    assert first < line <= first + len(function.splitlines())


def test_an_engine_that_fails_is_not_the_learners_fault(folder):
    """vLLM's stand-in refuses a second GPU: so does a machine that is not fit for the model."""
    one, two = "tensor_parallel_size: int = 1", "tensor_parallel_size: int = 2"
    write_starter(folder, SOLUTION.replace(one, two))
    text = (
        (folder / "test_lab.py")
        .read_text()
        .replace("DEFAULT_MODEL, 1, 0.9", "DEFAULT_MODEL, 2, 0.9")
    )
    (folder / "test_lab.py").write_text(
        text.replace('"lab/model-b", 1, 0.9', '"lab/model-b", 2, 0.9')
    )
    done = grade(folder, "-k", "live", LAB_BACKEND="vllm", PYTHONPATH=str(HERE / "stand_in"))
    assert done.codes == {"live": "LAB-ENGINE"}, done.out
    assert "there is 1 GPU" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("len(results) / elapsed", "2 * len(results) / elapsed"), "L2-SCRIPT-RATE"),
        (('print("Engine initialized successfully!\\n")', "pass"), "L2-SCRIPT-LINE"),
        (
            (
                "        engine.shutdown()\n",
                "        engine.shutdown()\n        asyncio.sleep(0)\n",
            ),
            "L2-SCRIPT-STDERR",
        ),
        (
            ("        engine.shutdown()\n", "        engine.shutdown()\n        1 / 0\n"),
            "L2-SCRIPT-STATUS",
        ),
    ],
)
def test_a_script_that_prints_something_else(folder, change, code):
    changed = SOLUTION.replace(*change)
    assert changed != SOLUTION
    write_starter(folder, changed)
    # On the stand-in, which starts at once; the real engine's script is run in test_readme.py.
    done = grade(folder, "-k", "script", LAB_BACKEND="vllm", PYTHONPATH=str(HERE / "stand_in"))
    assert done.codes == {"script": code}, done.out
