"""Lab 03: its five parts in any order; the whole way through the lab by its README."""

import ast
import re
from pathlib import Path

import pytest
from labkit.feedback import load_texts
from learner import Done, copy_lab, grade, run
from test_readme import SECTIONS
from variant import HERE, LABS, definitions, load, merged

LAB03 = LABS / "lab03_going_further"
README = (LAB03 / "README.md").read_text(encoding="utf-8")
STARTER = (LAB03 / "starter.py").read_text(encoding="utf-8")
SOLUTION = (LAB03 / "solution.py").read_text(encoding="utf-8")
NO_NETWORK = str(HERE / "no_network")
STAND_IN = str(HERE / "stand_in")
VLLM = {"LAB_BACKEND": "vllm", "PYTHONPATH": STAND_IN}

TODOS = {
    "generate_until": "A",
    "PriorityDispatcher.__init__": "B",
    "PriorityDispatcher.submit": "B",
    "generate_with_timeout": "C",
    "create_app": "D",
    "Monitor.__init__": "E",
    "Monitor.generate": "E",
    "Monitor.snapshot": "E",
}
PARTS = dict.fromkeys(TODOS.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = copy_lab(tmp_path_factory.mktemp("learner"), LAB03)
    (folder / "starter.py").write_text(SOLUTION, encoding="utf-8")
    return folder


@pytest.fixture
def untouched(tmp_path) -> Path:
    """A folder of its own, to write into."""
    return copy_lab(tmp_path, LAB03)


@pytest.fixture(scope="module")
def unstarted() -> Done:
    return grade(LAB03, "-v")


def body_of(name: str) -> str:
    """Return the line that leaves a function of the starter open."""
    node = definitions(STARTER)[name]
    [line] = [part for part in node.body if isinstance(part, ast.Raise)]
    return STARTER.splitlines()[line.lineno - 1].strip()


# --- the starter


def test_what_is_not_started_is_skipped_and_named_with_its_line(unstarted):
    assert unstarted.states == dict.fromkeys(PARTS, "open")
    assert unstarted.codes == {}
    assert unstarted.status == 0
    assert not re.search(" passed| failed|Traceback", unstarted.out)
    [ladder, what_next] = unstarted.out.splitlines()[-3:-1]
    assert ladder == "Lab 03: [A open] [B open] [C open] [D open] [E open]"
    named = re.findall(r"(\w) \(starter\.py:(\d+)\)", what_next)
    assert [part for part, _ in named] == list(PARTS)
    lines = STARTER.splitlines()
    for part, line in named:
        assert f'raise NotImplementedError("TODO {part}:' in lines[int(line) - 1]


def test_the_script_names_the_same_lines(unstarted):
    done = run(LAB03, "starter.py")
    assert (done.status, done.err) == (0, "")
    told = re.findall(r"^(\w)  not started: starter\.py, line (\d+)$", done.out, re.M)
    assert [f"{part} (starter.py:{line})" for part, line in told] == re.findall(
        r"\w \(starter\.py:\d+\)", unstarted.out
    )
    assert done.out.startswith("=== Going Further Lab ===\n\nA  not started")


def test_starter_and_solution_differ_in_the_bodies_of_the_todos_alone():
    starter, solution = definitions(STARTER), definitions(SOLUTION)
    helpers = {"PriorityDispatcher._take_place", "PriorityDispatcher._give_place"}
    assert starter.keys() == solution.keys() - helpers
    for name, node in starter.items():
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node) == ast.get_docstring(solution[name]), name
        elif name in TODOS:
            assert type(node) is type(solution[name]), name
            assert ast.dump(node.args) == ast.dump(solution[name].args), name
            assert ast.get_docstring(node) == ast.get_docstring(solution[name]), name
            # An async generator has a yield, which is all that may stand below.
            raised, *rest = node.body[1:]
            assert f"NotImplementedError('TODO {TODOS[name]}:" in ast.unparse(raised)
            assert [ast.unparse(part) for part in rest] in ([], ["yield"]), name
        else:
            assert ast.dump(node) == ast.dump(solution[name]), name


def test_one_part_can_be_done_without_the_others(untouched):
    """Its own tests run, then it alone on the engine and in the script; the others stay open."""
    given = "return await asyncio.wait_for(_read(engine.generate(prompt, sampling_params, \
request_id)), timeout_s)"
    text = STARTER.replace(body_of("generate_with_timeout"), given)
    text += "\n\nasync def _read(stream):\n    texts = [each.outputs[0].text async for each in "
    text += "stream]\n    return texts[-1]\n"
    text = text.replace('if __name__ == "__main__":\n    asyncio.run(main())\n', "")
    text += '\n\nif __name__ == "__main__":\n    asyncio.run(main())\n'
    (untouched / "starter.py").write_text(text, encoding="utf-8")
    done = grade(untouched, **VLLM)
    assert done.states == dict.fromkeys(PARTS, "open") | {"C": "ok", "live": "ok"}, done.out
    assert "Not started, in any order: A (" in done.out
    out = run(untouched, "starter.py", **VLLM).out
    assert "C  timed out" in out
    assert out.count("not started") == len(PARTS) - 1


def test_a_class_that_is_half_done_is_not_taken_for_one_that_was_not_started(untouched):
    text = STARTER.replace(body_of("Monitor.__init__"), "self.engine = engine")
    (untouched / "starter.py").write_text(text, encoding="utf-8")
    done = grade(untouched, "-k", "todoE")
    assert (done.states, done.codes) == ({"E": "FIX"}, {"E": "LAB-OPEN"})
    [line] = re.findall(r"^TODO E is still open: starter.py, line (\d+)", done.out, re.M)
    assert body_of("Monitor.snapshot") in text.splitlines()[int(line) - 1]
    assert f"Next: TODO E, starter.py:{line}" in done.out


def test_the_block_is_all_that_is_said_of_a_mistake(untouched):
    """Python tells of the coroutines that it dropped, with tracebacks, when the run is over."""
    [variant] = [each for each in load("lab03", "wrong") if each.code == "L3-TASKS"]
    (untouched / "starter.py").write_text(merged(SOLUTION, variant.path), encoding="utf-8")
    done = grade(untouched, "-k", "todoA")
    assert (done.codes, done.err) == ({"A": "L3-TASKS"}, "")
    assert not re.search("Traceback|never awaited", done.out)


# --- the README


def test_the_sections_are_those_of_lab_02_in_the_same_order():
    assert re.findall(r"^## (.+)$", README, re.M) == SECTIONS


def test_the_commands_are_the_ones_that_are_run_here():
    """Whoever adds a command to the README adds the test that runs it."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    assert sorted({line for block in blocks for line in block.splitlines()}) == [
        "pip install -r requirements.txt",  # as Lab 02's: test_readme.py
        "pytest test_lab.py -v",
        "pytest test_lab.py -v -k todoA",
        'python -c "import wheelpit; print(wheelpit.__path__[0])"',
        "python -m labkit.check",  # as Lab 02's: test_readme.py
        "python -m labkit.hint A",
        "python -m labkit.watch",  # as Lab 02's: test_kit.py
        "python kill_the_engine.py",
        "python starter.py",
    ]
    lab02 = LABS / "lab02_online_serving"
    assert (LAB03 / "conftest.py").read_text() == (lab02 / "conftest.py").read_text()
    requirements = (LAB03 / "requirements.txt").read_text()
    assert requirements.startswith((lab02 / "requirements.txt").read_text())
    assert requirements.splitlines()[-1] == "fastapi>=0.115"


def test_each_part_ends_with_where_the_engine_does_it():
    """The links lead to files, and what they name is defined there."""
    chapters = re.split(r"^### (?:Part|Step) ", README, flags=re.M)
    parts = {chapter[0]: chapter for chapter in chapters if re.match(r"[A-E]: ", chapter)}
    assert list(parts) == list(PARTS)
    for part, chapter in parts.items():
        _, _, where = chapter.partition("**In the engine")
        assert re.search(r"\]\(\.\./\.\./src/wheelpit/", where), part
    for label, link in re.findall(r"\[([^]]+)\]\((\.\./[^)]+)\)", README):
        target = (LAB03 / link).resolve()
        assert target.is_file(), link
        named = re.match(r"`(?:(\w+)\.)?(\w+)(?:\(\))?` in ([\w/.]+)$", label)
        if named:
            owner, name, file = named.groups()
            assert link.endswith(file)
            assert (f"{owner}.{name}" if owner else name) in everything_in(target), label
    package = run(LAB03, "-c", "import wheelpit; print(wheelpit.__path__[0])").out.strip()
    assert Path(package).resolve() == LABS.parent / "src" / "wheelpit"


def everything_in(path: Path) -> set[str]:
    """Return a file's functions, classes and methods; methods also without their class."""
    found = set(definitions(path.read_text(encoding="utf-8")))
    return found | {name.partition(".")[2] for name in found}


def test_what_the_readme_quotes_of_the_engine_is_there():
    policies = (LABS.parent / "src/wheelpit/scheduling/policies.py").read_text(encoding="utf-8")
    for name in ("rank_strict", "rank_aged"):
        assert f"`{name}`" in README
        assert f"def {name}(" in policies


def test_the_solution_passes_every_stage_without_network(folder):
    done = grade(folder, "-v", PYTHONPATH=NO_NETWORK)
    assert done.states == dict.fromkeys([*PARTS, "live"], "ok"), done.out
    assert done.status == 0
    assert "python kill_the_engine.py" in done.out
    assert " skipped" not in done.out
    assert "warning" not in done.out
    assert done.out.isascii()


def test_the_expected_output_is_what_the_script_prints(folder):
    [shown] = re.findall(r"## Expected Output\n\n[^`]*```\n(.*?)```", README, re.S)
    done = run(folder, "starter.py", PYTHONPATH=NO_NETWORK)
    assert (done.status, done.err) == (0, "")
    assert normal(done.out) == normal(shown)
    assert (done.out + shown).isascii()


def normal(text: str) -> list[str]:
    """Replace what depends on the machine's speed."""
    text = re.sub(r"after \d+ characters", "after N characters", text)
    return re.sub(r"\d+ ms", "N ms", text).splitlines()


def test_one_part_can_be_graded_alone_and_has_hints(folder):
    done = grade(folder, "-v", "-k", "todoA")
    assert done.states == {"A": "ok"}
    hint = run(folder, "-m", "labkit.hint", "A")
    assert hint.out.startswith("TODO A, cancel a request. Step 1 of 3")


def test_codes_in_the_readme_exist():
    named = set(re.findall(r"\b(?:L3|LAB)-[A-Z0-9]+(?:-[A-Z0-9]+)?\b", README))
    assert named
    assert named <= set(load_texts("lab03").codes)


# --- the demonstration


def test_who_kills_the_engine_sees_all_requests_go_on(folder):
    [shown] = re.findall(r"### Step 6: .*?```\n(Undisturbed:.*?)```", README, re.S)
    done = run(folder, "kill_the_engine.py", PYTHONPATH=NO_NETWORK)
    assert done.status == 0, done.err
    assert re.fullmatch(
        r"the engine process was killed by signal 9; \d requests? waits?\n", done.err
    )
    assert without_marks(done.out) == without_marks(shown)
    assert "Answers equal to the undisturbed ones: 6 of 6\n" in done.out
    # In mid-stream: a bar with both halves. All six have them, unless this machine is very busy.
    assert re.search(r"=\|#+ \d+ tokens$", done.out, re.M)


def without_marks(text: str) -> list[str]:
    """Leave out where the kill came, and whom it met."""
    text = re.sub(r"[=|#]{40,}", "#", text)
    return re.sub(r"kill -9 \d+", "kill -9 N", text).splitlines()


def test_in_the_clone_it_says_that_it_is_for_one_engine_only():
    done = run(LAB03, "kill_the_engine.py", **VLLM)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("This is for Wheelpit's engine, which survives its process: ")


# --- other machines


def test_without_fastapi_part_d_is_skipped_with_the_reason(folder, tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ImportError('No module named fastapi')\n")
    machine = {**VLLM, "PYTHONPATH": f"{tmp_path}:{STAND_IN}"}
    done = grade(folder, "-v", **machine)
    assert done.states == dict.fromkeys([*PARTS, "live"], "ok") | {"D": "skipped"}, done.out
    assert done.status == 0
    assert "TODO D was skipped: it needs FastAPI: pip install fastapi" in done.out
    script = run(folder, "starter.py", **machine)
    assert (script.status, script.err) == (0, "")
    assert "\nD  needs FastAPI: pip install fastapi\n" in script.out


def test_it_runs_on_vllm_as_well(folder):
    done = grade(folder, "-v", **VLLM)
    assert done.states == dict.fromkeys([*PARTS, "live"], "ok"), done.out
    script = run(folder, "starter.py", **VLLM)
    assert (script.status, script.err) == (0, "")
    assert [line[:1] for line in script.out.splitlines()[2:]] == list(PARTS)
