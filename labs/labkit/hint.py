"""`python -m labkit.hint 4a`: a hint for a TODO, in three steps; `... 4a 2` is the second.

`python -m labkit.hint L2-4A-FIRST` repeats the sentence of a code.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from labkit.feedback import WIDTH, Stage, Texts, ascii_only, load_everything, load_texts
from labkit.places import command

STEPS = ("the question to ask", "what to use", "almost the code")


def main(arguments: Sequence[str]) -> int:
    """Print what was asked for. Return the exit status."""
    words = list(arguments)
    lab = _lab(words)
    if lab is None or lab not in _labs():
        print("Which lab? Run this in the lab's folder, or add --lab 02.")
        return 2
    texts = load_texts(lab)
    stages = {stage.id.lower(): stage for stage in texts.stages if stage.hints}
    known = ", ".join(stage.id for stage in stages.values())
    if not words:
        print(f"usage: {command('hint', 'TODO')} [STEP], TODO is one of {known}")
        return 2
    asked = words[0].lower().removeprefix("todo")
    if words[0].upper() in texts.codes:
        print(_filled(texts.codes[words[0].upper()]))
        return 0
    if asked not in stages:
        print(f"Lab {lab[-2:]} has no TODO {words[0]}; it has {known}.")
        return 2
    step = int(words[1]) if len(words) > 1 and words[1].isdigit() else 1
    return _print(texts, stages[asked], step)


def _print(texts: Texts, stage: Stage, step: int) -> int:
    if not 1 <= step <= len(stage.hints):
        print(f"TODO {stage.id} has the steps 1 to {len(stage.hints)}.")
        return 2
    print(f"TODO {stage.id}, {stage.title}. Step {step} of {len(stage.hints)}: {STEPS[step - 1]}")
    print()
    print(_filled(ascii_only(stage.hints[step - 1])))
    print()
    if step < len(stage.hints):
        print(f"Still stuck? {command('hint', stage.id, str(step + 1))}")
    else:
        print("Still stuck? solution.py has one right answer; read it, close it, write your own.")
    return 0


def _filled(hint: str) -> str:
    """Break prose into lines; code stays as it is."""
    is_code = any(line.startswith("    ") for line in hint.splitlines())
    return hint if is_code else textwrap.fill(" ".join(hint.split()), WIDTH)


def _lab(words: list[str]) -> str | None:
    """Take `--lab NN` out of the words, or find out which lab's folder this is."""
    if "--lab" in words[:-1]:
        place = words.index("--lab")
        number = words[place + 1]
        del words[place : place + 2]
        return f"lab{number.zfill(2)}"
    tests = Path("test_lab.py")
    if tests.is_file():
        match = re.search(r'^LAB = "(\w+)"', tests.read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match.group(1)
    labs = _labs()
    return labs[0] if len(labs) == 1 else None


def _labs() -> list[str]:
    return sorted(name for name in load_everything() if name.startswith("lab"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
