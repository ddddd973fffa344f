"""Prove that the simulation finds bugs: put some in, one at a time, and look how soon it does.

`mutants/NAME.patch` says in its first line what it breaks. It is applied to a copy of `src`; the
seeds are run from 0 on until one finds it.

    python -m tests.simulation.mutants [NAME ...]      all of them, on all cores
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "mutants"
MAX_SEEDS = 2000
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Mutant:
    """One deliberate bug. description: what is broken."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """num_seeds: how many it took to find it; None if it lives. words: what was found."""

    mutant: Mutant
    num_seeds: int | None
    words: str


def all_mutants() -> list[Mutant]:
    """Every patch in the folder, by name."""
    return [
        Mutant(path.stem, path.read_text().splitlines()[0])
        for path in sorted(FOLDER.glob("*.patch"))
    ]


def check_applies(mutant: Mutant) -> str | None:
    """Say what is wrong with the patch, if it does not fit the code any more."""
    done = subprocess.run(
        ["git", "apply", "--check", str(FOLDER / f"{mutant.name}.patch")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stderr.strip() if done.returncode else None


def apply(mutant: Mutant, folder: Path) -> str | None:
    """Copy `src` to folder / "src" and break it there; returns what went wrong, or None."""
    ignored = shutil.ignore_patterns("__pycache__", "builtin")
    shutil.copytree(ROOT / "src" / "wheelpit", folder / "src" / "wheelpit", ignore=ignored)
    # Without the --directory of a repository around it, git applies to where it stands.
    done = subprocess.run(
        ["git", "apply", "--verbose", str(FOLDER / f"{mutant.name}.patch")],
        cwd=folder,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        capture_output=True,
        text=True,
    )
    if done.returncode or "Applied patch" not in done.stderr:
        return f"the patch does not apply: {done.stderr.strip().splitlines()[-1:]}"
    return None


def judge(mutant: Mutant, max_seeds: int = MAX_SEEDS) -> Verdict:
    """Run seeds against it until one fails."""
    with tempfile.TemporaryDirectory() as name:
        problem = apply(mutant, Path(name))
        if problem is not None:
            return Verdict(mutant, None, problem)
        paths = [str(Path(name) / "src"), str(ROOT)]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.simulation", "--until-found", str(max_seeds)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return Verdict(mutant, None, f"not found in {TIMEOUT_S:.0f} s")
    found = re.match(r"seed (\d+): (.*)", done.stdout)
    if done.returncode == 1 and found is not None:
        return Verdict(mutant, int(found[1]) + 1, found[2])
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Verdict(mutant, None, lines[-1] if lines else "nothing was said")


def judge_all(mutants: Sequence[Mutant], max_seeds: int = MAX_SEEDS) -> list[Verdict]:
    """As many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda mutant: judge(mutant, max_seeds), mutants))


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """In Markdown."""
    lines = ["| mutant | what it breaks | seeds | found by |", "| --- | --- | ---: | --- |"]
    for verdict in verdicts:
        mutant, seeds = verdict.mutant, verdict.num_seeds
        shown = "**lives**" if seeds is None else str(seeds)
        words = verdict.words if len(verdict.words) < 90 else verdict.words[:87] + "..."
        lines.append(f"| {mutant.name} | {mutant.description} | {shown} | {words} |")
    return lines


def main() -> int:
    """Returns the exit status: 1 if one lives."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("names", nargs="*", help="these mutants only")
    names = parser.parse_args().names
    chosen = [mutant for mutant in all_mutants() if not names or mutant.name in names]
    verdicts = judge_all(chosen)
    sys.stdout.write("\n".join(table(verdicts)) + "\n")
    num_living = sum(verdict.num_seeds is None for verdict in verdicts)
    sys.stdout.write(f"\n{len(verdicts)} mutants, {num_living} live\n")
    return int(num_living > 0 or not verdicts)


if __name__ == "__main__":
    sys.exit(main())
