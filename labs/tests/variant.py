"""Variants: wrong and right answers to a lab, each a file with the functions that differ.

A variant's first line says which stage it is about and, if it is wrong, which code it must get:

    '''4a L2-4A-FIRST: returns inside the loop'''

The file that is graded is the lab's solution with these functions in place of its own.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from labkit.feedback import load_texts

LABS = Path(__file__).resolve().parents[1]
LAB02 = LABS / "lab02_online_serving"
HERE = Path(__file__).resolve().parent
VARIANTS = HERE / "variants"

DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Variant:
    """One answer to one lab. `code` is None if it is right."""

    lab: str
    path: Path
    stage: str
    code: str | None
    idea: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def is_listed(self) -> bool:
        """Is it one of the twenty-seven that Lab 02 was designed against?"""
        number = re.match(r"\d+", self.name)
        return self.code is not None and number is not None and int(number.group()) <= 27

    def build(self, folder: Path) -> Path:
        """Write the whole file to grade and return its path."""
        target = folder / f"{self.name}.py"
        solution = labs()[self.lab] / "solution.py"
        text = merged(solution.read_text(encoding="utf-8"), self.path)
        target.write_text(text, encoding="utf-8")
        return target


def labs() -> dict[str, Path]:
    """Return the labs that have variants: "lab02" -> its folder."""
    names = sorted(folder.name for folder in VARIANTS.iterdir() if folder.is_dir())
    return {name: next(LABS.glob(f"{name}_*")) for name in names}


def load(lab: str, kind: str) -> list[Variant]:
    """Return a lab's variants of one kind, "wrong" or "right", in order."""
    return [_read(lab, path) for path in sorted((VARIANTS / lab / kind).glob("*.py"))]


def stages_to_grade(variants: list[Variant]) -> str:
    """Return what `verdicts.py` is told to grade of these answers, all to one lab.

    Where the parts of a lab are independent, an answer is graded in its own: the others are the
    solution's, which is graded as well.
    """
    is_independent = bool(variants) and load_texts(variants[0].lab).open_is == "skip"
    return ",".join(variant.stage for variant in variants) if is_independent else "contract"


def _read(lab: str, path: Path) -> Variant:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    match = re.fullmatch(r'"""(\w+)(?: ([A-Z0-9-]+))?: (.+)"""', first)
    assert match is not None, f'{path}: the first line must be """STAGE [CODE]: idea"""'
    return Variant(lab, path, match.group(1), match.group(2), match.group(3))


def merged(solution: str, variant: Path) -> str:
    """Return the solution with the variant's functions, and what stands before them, put in."""
    text = variant.read_text(encoding="utf-8")
    tree = ast.parse(text)
    names = {node.name for node in tree.body if isinstance(node, DEFINITIONS)}
    new = text.split("\n", 1)[1].strip("\n")
    lines = solution.splitlines()
    places = [
        node
        for node in ast.parse(solution).body
        if isinstance(node, DEFINITIONS) and node.name in names
    ]
    assert places, f"{variant}: the solution has no {sorted(names)}"
    for node in reversed(places):
        is_first = node is places[0]
        lines[node.lineno - 1 : node.end_lineno] = new.splitlines() if is_first else []
    return "\n".join(lines) + "\n"


def definitions(text: str) -> dict[str, DEFINITIONS]:
    """Return a file's functions, its classes, and their methods: "Monitor.snapshot"."""
    found: dict[str, DEFINITIONS] = {}
    for node in ast.parse(text).body:
        if isinstance(node, DEFINITIONS):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            methods = [method for method in node.body if isinstance(method, DEFINITIONS)]
            found |= {f"{node.name}.{method.name}": method for method in methods}
    return found
