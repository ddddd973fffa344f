"""Do what a learner does: commands in a folder, with a learner's environment.

Nothing of the project's own test settings reaches them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variant import LAB02, LABS

LIMIT_S = 100.0
"""No command of a learner's takes this long; one that does is killed and fails its test."""

SHARED = ("labkit", "pytest.ini")


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str
    report: dict[str, Any]

    @property
    def states(self) -> dict[str, str]:
        return self.report["labs"][0]["states"]

    @property
    def codes(self) -> dict[str, str]:
        return self.report["labs"][0]["codes"]


def environment(**more: str) -> dict[str, str]:
    """Return the environment without what belongs to the tests around."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "LAB_")) or name == "LAB_TIMEOUT_SCALE"
    }
    return {**kept, **more}


def run(folder: Path, *words: str, limit_s: float = LIMIT_S, **more: str) -> Done:
    """Run `python WORDS` in a folder."""
    report = folder / ".report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(LAB_REPORT=str(report), **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )
    written = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    report.unlink(missing_ok=True)
    return Done(done.returncode, done.stdout, done.stderr, written)


def grade(folder: Path, *words: str, limit_s: float = LIMIT_S, **more: str) -> Done:
    """Run `pytest test_lab.py WORDS` in a folder."""
    pytest = ("-m", "pytest", "test_lab.py", "-p", "no:cacheprovider")
    return run(folder, *pytest, *words, limit_s=limit_s, **more)


def copy_lab(folder: Path, lab: Path = LAB02) -> Path:
    """Make a learner's folder as `wheelpit lab start` does, with the kit in it; return it."""
    target = folder / lab.name
    litter = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(lab, target, ignore=litter)
    for name in SHARED:
        if (LABS / name).is_dir():
            shutil.copytree(LABS / name, target / name, ignore=litter)
        else:
            shutil.copy2(LABS / name, target / name)
    return target
