"""Imports point one way, torch stays in the engine process, asyncio out of it.

Read from the source of every module, imports inside functions included. The layers, from the top:

    cli, bench -> server -> text, engine -> scheduling, runner -> models -> layers -> kernels
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "wheelpit"

NOUNS = {"errors", "config", "request"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "request": {"errors"},
    "kernels": NOUNS,
    "layers": NOUNS | {"kernels"},
    "models": NOUNS | {"kernels", "layers"},
    "scheduling": NOUNS,
    "runner": NOUNS | {"kernels", "layers", "models", "scheduling"},
    "text": NOUNS,
    "engine": NOUNS | {"text", "scheduling", "runner", "models", "kernels"},
    "llm": NOUNS | {"text", "scheduling", "runner", "models", "engine"},
    "server": NOUNS | {"text", "scheduling", "models", "engine"},
    "bench": NOUNS | {"text"},
    "cli": NOUNS | {"text", "models", "engine", "llm", "server", "bench"},
    "__main__": {"cli"},
}
"""Top-level module or folder -> those it may import besides itself."""

FACADE = {"__init__", "exceptions", "inputs", "logprobs", "outputs", "sampling_params"} | {
    "usage",
    "utils",
    "v1",
}
"""vLLM's import paths: they show what is elsewhere, and nothing of ours imports them."""

ENGINE_PROCESS = (
    "engine.core",
    "engine.forking",
    "engine.worker",
    "kernels",
    "layers",
    "models",
    "runner",
    "scheduling",
)
"""What runs in the engine process: no asyncio."""

FRONT_END_OF_MODELS = ("models.source", "models.config")
WITH_TORCH = ("kernels", "layers", "models", "runner")
"""The only folders that may import torch; `FRONT_END_OF_MODELS` may not."""

FRONT_END_LOADS_A_RUNNER = ("llm", "engine.worker")
"""Who may name the runner: LLM, which is its own engine process, and the engine process."""


@cache
def module_names() -> tuple[str, ...]:
    """Return all modules, dotted and without the package: "text.stop", "errors", "__init__"."""
    return tuple(
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(SOURCE.rglob("*.py"))
    )


def path_of(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.AST:
    path = path_of(module)
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return the absolute names a module imports, anywhere in it, but for type checking."""
    path = path_of(module)
    tree = tree_of(module)
    package = ("wheelpit." + module).split(".")
    if path.name != "__init__.py" or module == "__init__":
        package = package[:-1]
    return frozenset(_imports(tree, package))


def _imports(tree: ast.AST, package: list[str]) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
            yield from _imports(node, package)
        else:
            yield from _imports(node, package)


def is_in(module: str, folders: tuple[str, ...]) -> bool:
    return any(module == folder or module.startswith(folder + ".") for folder in folders)


def imported_layers(module: str) -> set[str]:
    parts = [name.split(".") for name in imports_of(module)]
    tops = {part[1] for part in parts if part[0] == "wheelpit" and len(part) > 1}
    # `from wheelpit import __version__` names no module.
    return {top for top in tops if top in {name.split(".")[0] for name in module_names()}}


def imports_package(module: str, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imports_of(module))


@pytest.mark.parametrize("module", module_names())
def test_imports_point_one_way(module):
    top = module.split(".")[0]
    if top in FACADE:
        return
    assert top in MAY_IMPORT, f"{module}: give the new layer {top!r} its place in MAY_IMPORT"
    wrong = imported_layers(module) - MAY_IMPORT[top] - {top}
    assert not wrong, f"{module} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", module_names())
def test_torch_is_imported_only_below_the_engine(module):
    if is_in(module, WITH_TORCH) and not is_in(module, FRONT_END_OF_MODELS):
        return
    for package in ("torch", "triton", "transformers"):
        assert not imports_package(module, package), f"{module} imports {package}"


@pytest.mark.parametrize("module", module_names())
def test_the_front_end_does_not_reach_for_the_runner(module):
    if is_in(module, (*WITH_TORCH, *FRONT_END_LOADS_A_RUNNER)):
        return
    for name in imports_of(module):
        below = name.removeprefix("wheelpit.")
        assert not is_in(below, ("kernels", "layers", "runner")), f"{module} imports {name}"
        if is_in(below, ("models",)) and below != "models":
            assert is_in(below, FRONT_END_OF_MODELS), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in module_names() if is_in(name, ENGINE_PROCESS)])
def test_the_engine_process_knows_no_asyncio(module):
    for package in ("asyncio", "uvloop", "anyio", "fastapi", "uvicorn", "starlette"):
        assert not imports_package(module, package), f"{module} imports {package}"


def test_the_scheduler_reads_no_clock_and_does_no_io():
    for module in module_names():
        if is_in(module, ("scheduling",)):
            for package in ("time", "socket", "threading", "random", "numpy", "os", "subprocess"):
                assert not imports_package(module, package), f"{module} imports {package}"


@pytest.mark.parametrize("module", module_names())
def test_nothing_that_is_read_is_run(module):
    """Weights, templates and messages are data."""
    for package in ("pickle", "marshal", "shelve", "dill", "cloudpickle", "multiprocessing"):
        assert not imports_package(module, package), f"{module} imports {package}"
    forbidden = calls_in(tree_of(module)) & {"eval", "exec", "compile", "__import__", "torch.load"}
    assert not forbidden, f"{module} calls {', '.join(forbidden)}"


def calls_in(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_this_test_sees_imports():
    """The rules above mean nothing if the reading of the source is wrong."""
    assert "torch.nn" in set(_imports(ast.parse("def f():\n  from torch import nn"), []))
    assert set(_imports(ast.parse("from . import a"), ["wheelpit", "text"])) == {
        "wheelpit.text",
        "wheelpit.text.a",
    }
    assert not set(_imports(ast.parse("if TYPE_CHECKING:\n  import torch"), []))
    assert calls_in(ast.parse("x = [torch.load(exec('1'))]")) == {"torch.load", "exec"}
    assert "errors" in imported_layers("text.tokenizer")
    assert {"cli.main", "text.stop", "errors", "__init__"} <= set(module_names())
