"""`wheelpit lab`: list the labs; `wheelpit lab start 02` makes a learner's folder of one.

The labs are in the clone around an editable install, or in the wheel. A learner's folder has the
lab's files and the kit that grades them, and needs nothing from anywhere else but Wheelpit.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import wheelpit
from wheelpit.errors import ConfigError, NotFoundError

SHARED = ("labkit", "pytest.ini", "AGENTS.md")
"""What a learner's folder needs besides the lab's own files."""

LITTER = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class Lab:
    """One lab that can be started."""

    number: str
    title: str
    folder: Path


def lab(
    action: Annotated[
        str | None, typer.Argument(metavar="ACTION", help="start; leave out to list the labs.")
    ] = None,
    number: Annotated[
        str | None, typer.Argument(metavar="NUMBER", help="Which lab, such as 02.")
    ] = None,
) -> None:
    """List the hands-on labs, or `start` one: copy it into the current folder."""
    source = labs_folder()
    if action is None:
        _print_labs(find_labs(source))
    elif action == "start" and number is not None:
        _start(_choose(find_labs(source), number), source, Path.cwd())
    else:
        raise ConfigError("wheelpit lab lists the labs, wheelpit lab start 02 starts one")


def labs_folder() -> Path:
    """Return the folder of the labs: the wheel's, or the clone's of an editable install."""
    package = Path(wheelpit.__file__).resolve().parent
    for folder in (package / "labs", package.parents[1] / "labs"):
        if (folder / "labkit").is_dir():
            return folder
    raise ConfigError(f"this installation in {package} has no labs: reinstall Wheelpit")


def find_labs(source: Path) -> list[Lab]:
    """Return the labs in a folder, by number."""
    labs = []
    for readme in sorted(source.glob("lab[0-9][0-9]_*/README.md")):
        first = readme.read_text(encoding="utf-8").splitlines()[0]
        title = re.sub(r"^# Lab \d+: ", "", first)
        labs.append(Lab(readme.parent.name[3:5], title, readme.parent))
    return labs


def _choose(labs: list[Lab], number: str) -> Lab:
    wanted = number.lower().removeprefix("lab").zfill(2)
    for each in labs:
        if each.number == wanted:
            return each
    known = ", ".join(each.number for each in labs)
    raise NotFoundError(f"there is no lab {number}; there are {known}")


def _start(chosen: Lab, source: Path, here: Path) -> None:
    target = here / chosen.folder.name
    if target.exists():
        raise ConfigError(
            f"{target.name} exists already and may hold your work: go on in it, or move it away"
        )
    shutil.copytree(chosen.folder, target, ignore=LITTER)
    for name in SHARED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=LITTER)
        else:
            shutil.copy2(source / name, target / name)
    _drop_clone(target / "requirements.txt")
    print(f"Lab {chosen.number}, {chosen.title}, is in {target.name}. Next:")
    print()
    print(f"  cd {target.name}")
    print("  pip install -r requirements.txt")
    print("  python -m labkit.check              is this machine ready?")
    print("  python starter.py                   what is open?")
    print()
    print("README.md there has the steps.")


def _drop_clone(requirements: Path) -> None:
    """Take out the line that installs Wheelpit from a clone: here it is installed, and no clone."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if "../.." not in line]
    requirements.write_text("\n".join(kept) + "\n", encoding="utf-8")


def _print_labs(labs: list[Lab]) -> None:
    print("Write a part of an LLM server, on this machine's CPU, and have it graded:")
    print()
    for each in labs:
        print(f"  {each.number}  {each.title:<40} wheelpit lab start {each.number}")
