"""The file that is graded: load it, find its functions, say in a sentence why that fails."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_copies = itertools.count(1)

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Unloadable(Exception):
    """The file cannot be used as it is. `code` is the feedback's, `values` fill its sentence."""

    def __init__(self, code: str, line: int | None = None, **values: object) -> None:
        super().__init__(code, line, values)
        self.code = code
        self.line = line
        self.values = values


class Learner:
    """One learner's file and the module made of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._module: ModuleType | None = None
        self._tree: ast.Module | None = None

    def load(self) -> ModuleType:
        """Return the module; read and run the file once. Raises Unloadable."""
        if self._module is None:
            self._module = self.copy()
        return self._module

    def copy(self) -> ModuleType:
        """Run the file once more, as a module of its own.

        Under a private name: the labs' files share theirs.
        """
        module = ModuleType(f"_lab_learner_{next(_copies)}")
        module.__file__ = str(self.path)
        # dont_inherit: or the file's annotations were strings, as this file's are.
        code = compile(self.tree(), str(self.path), "exec", dont_inherit=True)
        sys.modules[module.__name__] = module
        try:
            exec(code, module.__dict__)
        except BaseException as error:
            del sys.modules[module.__name__]
            raise self._explain(error) from error
        return module

    def function(self, name: str, module: ModuleType | None = None) -> Callable[..., Any]:
        """Return a function, or a class, of the file. Raises Unloadable if it is missing."""
        found = getattr(module or self.load(), name, None)
        if not callable(found):
            raise Unloadable("LAB-MISSING", None, function=name)
        return found

    def line_of(self, function: str) -> int | None:
        """Return the line of a function's `def`, or of a class."""
        node = self._find(function)
        return None if node is None else node.lineno

    def open_line(self, function: str) -> int | None:
        """Return the line that says that a TODO is still open; None once there is code above it.

        A class is open while all of its methods are.
        """
        node = self._find(function)
        if isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, FUNCTIONS)]
            lines = [_open_line(method) for method in methods]
            return lines[0] if lines and all(lines) else None
        return None if node is None else _open_line(node)

    def tree(self) -> ast.Module:
        """Return the parsed file. Raises Unloadable."""
        if self._tree is None:
            try:
                text = self.path.read_text(encoding="utf-8")
                tree = ast.parse(text, str(self.path))
                # Some mistakes, an await outside of async def for one, are found only here.
                compile(tree, str(self.path), "exec", dont_inherit=True)
                self._tree = tree
            except FileNotFoundError:
                raise Unloadable("LAB-NOFILE", None, file=str(self.path)) from None
            except (SyntaxError, ValueError) as error:
                raise _syntax(error) from None
        return self._tree

    def _find(self, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None:
        found = None
        for node in self.tree().body:
            if isinstance(node, FUNCTIONS | ast.ClassDef) and node.name == name:
                found = node
        return found

    def _explain(self, error: BaseException) -> Unloadable:
        line = None
        traceback = error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == str(self.path):
                line = traceback.tb_lineno
            traceback = traceback.tb_next
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, ImportError):
            return Unloadable("LAB-IMPORT", line, error=text)
        if isinstance(error, RuntimeError) and "running event loop" in str(error):
            return Unloadable("LAB-UNGUARDED", line)
        return Unloadable("LAB-LOAD", line, error=text)


def _open_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int | None:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    first = body[0] if body else None
    is_open = isinstance(first, ast.Raise) and _says_todo(first)
    return first.lineno if first is not None and is_open else None


def _says_todo(statement: ast.Raise) -> bool:
    """Tell whether it is `raise NotImplementedError("TODO ...")`."""
    match statement.exc:
        case ast.Call(
            func=ast.Name(id="NotImplementedError"), args=[ast.Constant(value=str(text)), *_]
        ):
            return text.startswith("TODO")
    return False


def _syntax(error: SyntaxError | ValueError) -> Unloadable:
    if not isinstance(error, SyntaxError):
        return Unloadable("LAB-SYNTAX", None, error=str(error), text="")
    text = (error.text or "").rstrip()
    return Unloadable("LAB-SYNTAX", error.lineno, error=error.msg, text=text.strip())
