"""Lab 02's README: its commands are run as they stand, its output is compared, its order kept.

The learner's folder here is a copy outside of the clone, without network, with the solution for a
starter; so these are also the tests of the whole way through the lab.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from learner import Done, copy_lab, environment, grade, run
from variant import LAB02, LABS

README = (LAB02 / "README.md").read_text(encoding="utf-8")
NO_NETWORK = str(Path(__file__).with_name("no_network"))

SECTIONS = [
    "Overview",
    "Learning Objectives",
    "Estimated Time",
    "Prerequisites",
    "Lab Structure",
    "Instructions",
    "Expected Output",
    "Key Concepts",
    "Troubleshooting",
    "Going Further",
    "References",
]

COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = copy_lab(tmp_path_factory.mktemp("learner"))
    (folder / "starter.py").write_text((folder / "solution.py").read_text(encoding="utf-8"))
    return folder


@pytest.fixture(scope="module")
def script(folder) -> Done:
    return run(folder, "starter.py", PYTHONPATH=NO_NETWORK)


@pytest.fixture(scope="module")
def graded(folder) -> Done:
    return grade(folder, "-v", PYTHONPATH=NO_NETWORK)


def test_the_sections_stand_in_their_order():
    assert re.findall(r"^## (.+)$", README, re.M) == SECTIONS


def test_the_commands_are_the_ones_that_are_run_here():
    """Whoever adds a command to the README adds the test that runs it."""
    assert sorted(set(COMMANDS)) == [
        "pip install -r requirements.txt",
        "pytest test_lab.py -v",
        "pytest test_lab.py -v -k todo1",
        "python -m labkit.check",
        "python -m labkit.hint 1",
        "python -m labkit.watch",
        "python starter.py",
        'python starter.py "What is a coroutine?"',
    ]


def test_the_requirements_are_this_clone_and_pytest():
    """In the clone; a folder made by `wheelpit lab start` has only pytest left to install."""
    pytest.importorskip("hatchling")
    [command] = [command for command in COMMANDS if command.startswith("pip")]
    offline = ["--dry-run", "--no-index", "--no-build-isolation", "--no-deps", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), *offline],
        cwd=LAB02,
        env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (LAB02 / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "--editable ../..",
        "pytest>=8.4",
    ]
    assert (LAB02 / ".." / ".." / "pyproject.toml").resolve() == LABS.parent / "pyproject.toml"


def test_the_expected_output_is_what_the_script_prints(script):
    [shown] = re.findall(r"## Expected Output\n\n```\n(.*?)```", README, re.S)
    assert (script.status, script.err) == (0, "")
    assert script.out.isascii()
    assert normal(script.out) == normal(shown)


def normal(text: str) -> list[str]:
    """Replace what differs from run to run and from machine to machine."""
    text = re.sub(r"\breq-[^\s()]+", "req-N", text)
    text = re.sub(r"\d+\.\d\d", "X.XX", text)
    return text.splitlines()


def test_the_expected_output_has_the_designed_lines(script):
    patterns = [
        r"=== vLLM Async Online Serving Lab ===",
        r"",
        r"Initializing AsyncLLMEngine\.\.\.",
        r"Engine initialized successfully!",
        r"",
        r"Processing single request\.\.\.",
        r"Request ID: req-[^\s()]+",
        r"Prompt: Explain async programming in Python",
        r"Generated: \S.*\.\.\.",
        r"",
        r"Processing concurrent requests\.\.\.",
        r"Request 1 \(req-[^\s()]+\): Complete",
        r"Request 2 \(req-[^\s()]+\): Complete",
        r"Request 3 \(req-[^\s()]+\): Complete",
        r"",
        r"All 3 requests completed in \d+\.\d\d seconds",
        r"Throughput: \d+\.\d\d requests/second",
    ]
    lines = script.out.splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_question_is_answered(folder):
    done = run(folder, "starter.py", "What is a coroutine?", PYTHONPATH=NO_NETWORK)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Coroutines are a more generalized form of subroutines.")


def test_the_solution_passes_every_stage_without_network(graded):
    stages = ("1", "2", "3", "4a", "4b", "5", "live", "script")
    assert graded.states == dict.fromkeys(stages, "ok"), graded.out
    assert graded.status == 0
    assert " 37 passed" in graded.out
    assert "warning" not in graded.out
    assert graded.out.isascii()


def test_the_network_really_was_refused(folder):
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert "NetworkRefused" in run(folder, "-c", code, PYTHONPATH=NO_NETWORK).err


def test_the_whole_suite_takes_less_than_twenty_seconds_of_a_processor(graded):
    assert graded.report["processor_seconds"] < 20


def test_one_todo_alone_takes_a_moment(folder):
    done = grade(folder, "-v", "-k", "todo1")
    assert done.states == {"1": "ok"}
    assert done.report["processor_seconds"] < 3


def test_the_check_says_that_the_machine_is_ready(folder):
    done = run(folder, "-m", "labkit.check", PYTHONPATH=NO_NETWORK)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line[:7].strip() for line in lines[1:-1]] == ["[OK]"] * 5
    assert lines[-1].startswith("You are ready.")


def test_the_hint_is_the_first_of_three(folder):
    done = run(folder, "-m", "labkit.hint", "1")
    assert done.status == 0
    assert done.out.startswith("TODO 1, start an engine. Step 1 of 3")
    assert "python -m labkit.hint 1 2" in done.out


def test_codes_in_the_readmes_exist():
    from labkit.feedback import load_texts

    for page in (README, (LABS / "README.md").read_text(encoding="utf-8")):
        named = set(re.findall(r"\b(?:L2|LAB)-[A-Z0-9]+(?:-[A-Z0-9]+)?\b", page))
        assert named
        assert named <= set(load_texts("lab02").codes)
