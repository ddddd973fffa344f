"""The untouched starter: it runs, says what is open, and passes nothing."""

import ast
import re

import pytest
from learner import Done, grade, run
from variant import LAB02

TODOS = {
    "1": "create_async_engine",
    "2": "generate_request_id",
    "3": "submit_request",
    "4a": "collect_output",
    "4b": "stream_text",
    "5": "generate_concurrent_requests",
}
STARTER = (LAB02 / "starter.py").read_text(encoding="utf-8")
SOLUTION = (LAB02 / "solution.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def graded() -> Done:
    return grade(LAB02, "-v")


def test_each_todo_is_still_open_and_none_passes(graded):
    expected = dict.fromkeys(TODOS, "open") | {"live": "waits", "script": "waits"}
    assert graded.states == expected
    assert graded.codes == dict.fromkeys(TODOS, "LAB-OPEN")
    assert graded.status == 1
    assert " passed" not in graded.out


def test_each_open_todo_is_one_line_that_names_its_own(graded):
    lines = STARTER.splitlines()
    for todo in TODOS:
        found = re.findall(rf"^TODO {todo} is still open: starter.py, line (\d+)", graded.out, re.M)
        assert len(found) == 1, todo
        assert (
            lines[int(found[0]) - 1].strip().startswith(f'raise NotImplementedError("TODO {todo}:')
        )
    assert "Traceback" not in graded.out
    assert graded.out.isascii()


def test_the_run_ends_with_the_ladder_and_what_is_next(graded):
    lines = graded.out.splitlines()
    assert lines[-3] == (
        "Lab 02: [1 open] [2 open] [3 open] [4a open] [4b open] [5 open] "
        "[live waits] [script waits]"
    )
    assert re.fullmatch(r"Next: TODO 1, starter.py:\d+", lines[-2])


@pytest.mark.parametrize("todo", ["1", "4a"])
def test_one_todo_can_be_graded_alone(todo):
    done = grade(LAB02, "-v", "-k", f"todo{todo}")
    assert done.states == {todo: "open"}
    assert done.status == 1


def test_the_script_ends_cleanly_with_status_1():
    done = run(LAB02, "starter.py")
    assert (done.status, done.err) == (1, "")
    line = 1 + STARTER[: STARTER.index('raise NotImplementedError("TODO 1')].count("\n")
    assert done.out == (
        "=== vLLM Async Online Serving Lab ===\n\nInitializing AsyncLLMEngine...\n"
        f"TODO 1 is still open: starter.py, line {line}\n"
    )


def test_starter_and_solution_have_equal_signatures_and_docstrings():
    starter, solution = functions(STARTER), functions(SOLUTION)
    assert starter.keys() == solution.keys()
    for name, node in starter.items():
        assert type(node) is type(solution[name]), name
        assert ast.dump(node.args) == ast.dump(solution[name].args), name
        assert ast.dump(node.returns or ast.Pass()) == ast.dump(
            solution[name].returns or ast.Pass()
        )
        assert ast.get_docstring(node) == ast.get_docstring(solution[name]), name


def test_only_the_todos_differ():
    starter, solution = functions(STARTER), functions(SOLUTION)
    given = starter.keys() - set(TODOS.values())
    assert given == {"generate_single_request", "preview", "main", "answer"}
    for name in given:
        assert ast.dump(starter[name]) == ast.dump(solution[name]), name
    for todo, name in TODOS.items():
        body = [part for part in starter[name].body if not isinstance(part, ast.Expr)]
        assert len(body) == 1, f"{name} gives something away"
        assert f'"TODO {todo}:' in ast.unparse(body[0]).replace("'", '"')


def functions(text: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {
        node.name: node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
