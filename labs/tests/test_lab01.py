"""Lab 01: the untouched starter; the whole way through the lab by its README, without network."""

import ast
import re
from pathlib import Path

import pytest
from labkit.feedback import load_texts
from learner import Done, copy_lab, grade, run
from variant import HERE, LABS, definitions

LAB01 = LABS / "lab01_basic_inference"
README = (LAB01 / "README.md").read_text(encoding="utf-8")
STARTER = (LAB01 / "starter.py").read_text(encoding="utf-8")
SOLUTION = (LAB01 / "solution.py").read_text(encoding="utf-8")
NO_NETWORK = str(HERE / "no_network")
VLLM = {"LAB_BACKEND": "vllm", "PYTHONPATH": str(HERE / "stand_in")}

TODOS = {
    "1": "create_llm",
    "2": "create_sampling_params",
    "3": "generate_completions",
    "4": "display_outputs",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = copy_lab(tmp_path_factory.mktemp("learner"), LAB01)
    (folder / "starter.py").write_text(SOLUTION, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def untouched() -> Done:
    return grade(LAB01, "-v")


# --- the starter


def test_each_todo_is_still_open_and_none_passes(untouched):
    expected = dict.fromkeys(TODOS, "open") | {"live": "waits", "script": "waits"}
    assert untouched.states == expected
    assert untouched.codes == dict.fromkeys(TODOS, "LAB-OPEN")
    assert untouched.status == 1
    assert " passed" not in untouched.out
    assert "Traceback" not in untouched.out
    lines = STARTER.splitlines()
    for todo in TODOS:
        [line] = re.findall(
            rf"^TODO {todo} is still open: starter.py, line (\d+)", untouched.out, re.M
        )
        assert f'raise NotImplementedError("TODO {todo}:' in lines[int(line) - 1]


def test_the_script_ends_cleanly_with_status_1():
    done = run(LAB01, "starter.py")
    assert (done.status, done.err) == (1, "")
    assert re.fullmatch(
        r"=== Basic Inference Lab ===\n\nLoading the model...\n"
        r"TODO 1 is still open: starter.py, line \d+\n",
        done.out,
    )


def test_starter_and_solution_differ_in_the_bodies_of_the_todos_alone():
    starter, solution = definitions(STARTER), definitions(SOLUTION)
    assert list(starter) == list(solution) == [*TODOS.values(), "main"]
    assert ast.dump(starter["main"]) == ast.dump(solution["main"])
    for todo, name in TODOS.items():
        assert ast.dump(starter[name].args) == ast.dump(solution[name].args)
        assert ast.dump(starter[name].returns) == ast.dump(solution[name].returns)
        assert ast.get_docstring(starter[name]) == ast.get_docstring(solution[name])
        [body] = [part for part in starter[name].body if not isinstance(part, ast.Expr)]
        assert ast.unparse(body).startswith(f"raise NotImplementedError('TODO {todo}:")


# --- the README


def test_the_commands_are_the_ones_that_are_run_here():
    """Whoever adds a command to the README adds the test that runs it."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    assert sorted({line for block in blocks for line in block.splitlines()}) == [
        "pip install -r requirements.txt",  # as Lab 02's: test_readme.py
        "pytest test_lab.py -v",
        "pytest test_lab.py -v -k todo1",
        "python -m labkit.check",  # as Lab 02's: test_readme.py
        "python -m labkit.hint 1",
        "python late_arrival.py",
        "python starter.py",
        'python starter.py "What is PEP 8?" "What is a decorator?"',
    ]
    lab02 = LABS / "lab02_online_serving"
    for name in ("requirements.txt", "conftest.py"):
        assert (LAB01 / name).read_text() == (lab02 / name).read_text()


def test_the_solution_passes_every_stage_without_network(folder):
    done = grade(folder, "-v", PYTHONPATH=NO_NETWORK)
    assert done.states == dict.fromkeys([*TODOS, "live", "script"], "ok"), done.out
    assert done.status == 0
    assert "python late_arrival.py" in done.out
    assert "warning" not in done.out
    assert done.out.isascii()
    assert done.report["processor_seconds"] < 20


def test_the_expected_output_is_what_the_script_prints(folder):
    [shown] = re.findall(r"## Expected Output\n\n```\n(.*?)```", README, re.S)
    done = run(folder, "starter.py", PYTHONPATH=NO_NETWORK)
    assert (done.status, done.err) == (0, "")
    assert without_times(done.out) == without_times(shown)
    assert (done.out + shown).isascii()


def without_times(text: str) -> list[str]:
    return re.sub(r"\d+\.\d\d", "X.XX", text).splitlines()


def test_questions_of_ones_own_are_one_batch(folder):
    """On the stand-in, which starts at once."""
    questions = ("What is PEP 8?", "What is a decorator?")
    done = run(folder, "starter.py", *questions, **VLLM)
    assert (done.status, done.err) == (0, "")
    assert "2 prompts completed in " in done.out
    assert done.out.count("\nPrompt: ") == 2


def test_one_todo_can_be_graded_alone_and_has_hints(folder):
    done = grade(folder, "-v", "-k", "todo1")
    assert done.states == {"1": "ok"}
    hint = run(folder, "-m", "labkit.hint", "1")
    assert hint.out.startswith("TODO 1, load a model. Step 1 of 3")


def test_a_late_arrival_waits_offline_and_joins_online(folder):
    done = run(folder, "late_arrival.py", PYTHONPATH=NO_NETWORK)
    assert (done.status, done.err) == (0, "")
    offline, online = (float(seconds) for seconds in re.findall(r"waited (\d+\.\d\d) s", done.out))
    assert offline > 3 * online, done.out
    rows = re.findall(r"^  (batch|late) +\|(.{49})\|", done.out, re.M)
    assert [name for name, _ in rows] == ["batch", "late"] * 2
    # Offline the late one begins where the batch ends; online it has ended by then.
    assert rows[1][1].index("#") >= len(rows[0][1].rstrip()) - 1
    assert len(rows[3][1].rstrip()) <= len(rows[2][1].rstrip())


def test_codes_in_the_readme_exist():
    named = set(re.findall(r"\bL1-[A-Z0-9]+-[A-Z0-9]+\b", README))
    assert named
    assert named <= set(load_texts("lab01").codes)


def test_it_runs_on_vllm_as_well(folder):
    done = grade(folder, "-v", **VLLM)
    assert set(done.states.values()) == {"ok"}, done.out
