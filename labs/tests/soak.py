"""`make labs-soak`: grade every variant many times, every other time on a busy machine.

A grader that is wrong once in fifty is wrong for somebody in every class. Counts the verdicts of
each variant and writes the table in README.md; the status is 1 if one verdict differed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from learner import copy_lab, environment, grade  # noqa: E402
from variant import LAB02, Variant, load  # noqa: E402

README = HERE / "README.md"
BEGIN, END = "<!-- soak: begin -->\n", "<!-- soak: end -->\n"

FULL_EVERY = 10
"""Each so many repeats the solution also runs on the real engine, as a learner runs it."""


def main() -> int:
    """Repeat, count, write the table."""
    options = _options()
    variants = [*load("lab02", "wrong"), *load("lab02", "right")]
    quiet, busy = defaultdict(Counter), defaultdict(Counter)
    differed: list[str] = []
    deadline = time.monotonic() + options.minutes * 60
    repeat = 0
    with tempfile.TemporaryDirectory() as folder:
        files = {variant.name: variant.build(LAB02, Path(folder)) for variant in variants}
        solution = copy_lab(Path(folder))
        (solution / "starter.py").write_text((solution / "solution.py").read_text())
        while repeat < options.repeats and time.monotonic() < deadline:
            is_busy = repeat % 2 == 1
            counts = busy if is_busy else quiet
            with _load(options.burners if is_busy else 0):
                verdicts = _grade(list(files.values()), Path(folder), options.processes)
                if repeat % FULL_EVERY < 2:
                    verdicts["solution"] = _whole(solution)
            for variant in [*variants, None]:
                name = variant.name if variant is not None else "solution"
                if name in verdicts:
                    is_right = _is_right(variant, verdicts[name])
                    counts[name][is_right] += 1
                    if not is_right:
                        differed.append(f"repeat {repeat}, busy: {is_busy}, {verdicts[name]}")
            repeat += 1
            print(f"{repeat} of {options.repeats}, {len(differed)} differed", flush=True)
    _write(variants, quiet, busy, options)
    print("\n".join(differed))
    return 1 if differed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60.0, help="Stop after this long.")
    parser.add_argument("--processes", type=int, default=8, help="Most of grading is waiting.")
    cores = os.cpu_count() or 1
    parser.add_argument("--burners", type=int, default=2 * cores, help="Busy loops for the load.")
    return parser.parse_args()


@contextmanager
def _load(num_burners: int) -> Iterator[None]:
    """Keep the machine busy meanwhile."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(num_burners)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def _burn() -> None:
    while True:
        sum(range(10_000))


def _grade(files: list[Path], folder: Path, num_processes: int) -> dict[str, dict]:
    """Grade all files in a few processes; name -> verdict."""
    running = []
    for number in range(num_processes):
        out = folder / f"verdicts{number}.json"
        part = [str(file) for file in files[number::num_processes]]
        command = [sys.executable, str(HERE / "verdicts.py"), str(out), str(LAB02), "contract"]
        running.append(
            (subprocess.Popen([*command, *part], env=environment(), stdout=subprocess.DEVNULL), out)
        )
    found: dict[str, dict] = {}
    for process, out in running:
        status = process.wait()
        assert status == 0, f"verdicts.py ended with status {status}"
        found |= {verdict["name"]: verdict for verdict in json.loads(out.read_text())}
    return found


def _whole(folder: Path) -> dict[str, object]:
    done = grade(folder)
    return {"codes": done.codes, "states": done.states, "seconds": done.report["seconds"]}


def _is_right(variant: Variant | None, verdict: dict) -> bool:
    if variant is None or variant.code is None:
        return set(verdict["states"].values()) == {"ok"}
    return verdict["codes"] == {variant.stage: variant.code}


def _write(
    variants: list[Variant],
    quiet: dict[str, Counter],
    busy: dict[str, Counter],
    options: argparse.Namespace,
) -> None:
    """Put the table into README.md, between the two marks."""

    def counted(name: str) -> str:
        parts = []
        for counts in (quiet, busy):
            right, total = counts[name][True], counts[name].total()
            parts.append(f"{right} of {total}")
        return " | ".join(parts)

    names = [*(variant.name for variant in variants), "solution"]
    totals = [sum(counts[name].total() for name in names) for counts in (quiet, busy)]
    wrong = sum(counts[name][False] for name in names for counts in (quiet, busy))
    lines = [
        f"{sum(totals)} verdicts, {totals[1]} of them on a busy machine; {wrong} differed.",
        "",
        f"`make labs-soak`, Python {platform.python_version()}, {os.cpu_count()} cores; busy is "
        f"{options.burners} endless loops beside it.",
        "",
        "| answer | idea | stage | verdict | right, idle | right, busy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for variant in variants:
        number = variant.name.split("_")[0]
        where = "27" if variant.is_listed else "more"
        kind = f"right {number}" if variant.code is None else f"{where}: {number}"
        verdict = variant.code or "passes"
        cells = [kind, variant.idea, variant.stage, verdict, counted(variant.name)]
        lines.append(f"| {' | '.join(cells)} |")
    cells = ["solution", "with the real engine and the script", "all", "passes"]
    lines.append(f"| {' | '.join([*cells, counted('solution')])} |")
    text = README.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
