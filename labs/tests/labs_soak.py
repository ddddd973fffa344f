"""`make labs-soak`: grade every variant many times, half of them on a busy machine.

A grader that is wrong once in fifty is wrong for somebody in every class. Counts the verdicts of
each variant and writes the table in README.md, also when it is interrupted; the status is 1 if one
verdict differed.
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
from variant import Variant, labs, load, stages_to_grade  # noqa: E402

README = HERE / "README.md"
BEGIN, END = "<!-- soak of {}: begin -->\n", "<!-- soak of {}: end -->\n"
"""Each lab's table has its place in README.md."""

ROUND = 15
"""So many repeats are one round, in the same processes, since they take their time to start. Idle
and busy take turns.
"""

FULL_EVERY = 2
"""Each so many rounds the solution also runs on the real engine, as a learner runs it."""

WHOLE_LIMIT_S = 900.0
"""On a busy machine, this may take its time."""

Found = list[tuple[str, bool, object]]
"""(Key, is the verdict right?, what was said)."""


def main() -> int:
    """Repeat, count, write the table."""
    options = _options()
    variants = [
        variant
        for lab in options.lab or labs()
        for kind in ("wrong", "right")
        for variant in load(lab, kind)
    ]
    counts: dict[str, defaultdict[str, Counter]] = {"idle": defaultdict(Counter)}
    counts["busy"] = defaultdict(Counter)
    differed: list[str] = []
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            soak = Soak(Path(folder), variants, options.processes)
            for number, times in enumerate(_rounds(options.repeats)):
                mood = ("idle", "busy")[number % 2]
                with _load(options.burners if mood == "busy" else 0):
                    found = soak.grade(times)
                    if number // 2 % FULL_EVERY == 0:
                        found += soak.grade_whole()
                for key, is_right, said in found:
                    counts[mood][key][is_right] += 1
                    if not is_right:
                        differed.append(f"round {number}, {mood}, {key}: {said}")
                minutes = (time.monotonic() - began) / 60
                print(f"round {number}, {minutes:.1f} min, {len(differed)} differed", flush=True)
                if minutes > options.minutes:
                    break
    finally:
        if any(counts.values()):
            for lab in options.lab or labs():
                _write(lab, [each for each in variants if each.lab == lab], counts, options)
        print("\n".join(differed))
    return 1 if differed else 0


def _rounds(num_repeats: int) -> Iterator[int]:
    """Yield how many repeats each round has, idle and busy by turns."""
    left = num_repeats
    while left:
        for part in (min(ROUND, (left + 1) // 2), min(ROUND, left // 2)):
            if part:
                yield part
                left -= part


class Soak:
    """All variants, built once, to be graded again and again."""

    def __init__(self, folder: Path, variants: list[Variant], num_processes: int) -> None:
        self._folder = folder
        self._num_processes = num_processes
        self._files: dict[str, list[tuple[Variant, Path]]] = defaultdict(list)
        self._variants = {_key(variant): variant for variant in variants}
        self._solutions: dict[str, Path] = {}
        for variant in variants:
            (folder / variant.lab).mkdir(exist_ok=True)
            file = variant.build(folder / variant.lab)
            self._files[variant.lab].append((variant, file))
        for lab in self._files:
            source = labs()[lab]
            self._solutions[lab] = copy_lab(folder, source)
            solution = (source / "solution.py").read_text(encoding="utf-8")
            (self._solutions[lab] / "starter.py").write_text(solution, encoding="utf-8")

    def grade(self, times: int) -> Found:
        """Grade every variant so many times, in a few processes."""
        running = []
        for lab, files in self._files.items():
            num_processes = max(1, round(self._num_processes * len(files) / len(self._variants)))
            for number in range(num_processes):
                out = self._folder / f"{lab}-{number}.json"
                part = files[number::num_processes]
                process = subprocess.Popen(
                    [
                        *(sys.executable, str(HERE / "verdicts.py"), f"--times={times}"),
                        *(str(out), str(labs()[lab])),
                        stages_to_grade([variant for variant, _ in part]),
                        *(str(path) for _, path in part),
                    ],
                    env=environment(),
                    stdout=subprocess.DEVNULL,
                )
                running.append((lab, process, out))
        found: Found = []
        for lab, process, out in running:
            status = process.wait()
            assert status == 0, f"verdicts.py ended with status {status}"
            for verdict in json.loads(out.read_text(encoding="utf-8")):
                key = f"{lab} {verdict['name']}"
                found.append((key, _is_right(self._variants[key], verdict), verdict))
        return found

    def grade_whole(self) -> Found:
        """Grade every solution as learners do, with the real engine and the script."""
        found: Found = []
        for lab, folder in self._solutions.items():
            done = grade(folder, limit_s=WHOLE_LIMIT_S)
            found.append((f"{lab} solution", set(done.states.values()) == {"ok"}, done.out))
        return found


def _key(variant: Variant) -> str:
    return f"{variant.lab} {variant.name}"


def _is_right(variant: Variant, verdict: dict) -> bool:
    if variant.code is None:
        return set(verdict["states"].values()) == {"ok"}
    return verdict["codes"] == {variant.stage: variant.code}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", choices=labs(), nargs="+", help="Not all of them.")
    parser.add_argument("--repeats", type=int, default=120)
    parser.add_argument("--minutes", type=float, default=180.0, help="Stop after this long.")
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


def _write(
    lab: str,
    variants: list[Variant],
    counts: dict[str, defaultdict[str, Counter]],
    options: argparse.Namespace,
) -> None:
    """Put a lab's table into README.md, between its two marks."""
    of_lab = {
        mood: [count for key, count in by_key.items() if key.startswith(lab)]
        for mood, by_key in counts.items()
    }
    totals = {mood: sum(map(Counter.total, found)) for mood, found in of_lab.items()}
    wrong = sum(count[False] for found in of_lab.values() for count in found)
    lines = [
        f"{sum(totals.values())} verdicts, {totals['busy']} of them on a busy machine; "
        f"{wrong} differed.",
        "",
        f"`make labs-soak`, Python {platform.python_version()}, {os.cpu_count()} cores; busy is "
        f"{options.burners} endless loops beside it.",
        "",
        "| answer | idea | stage | verdict | right, idle | right, busy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def add(key: str, *cells: str) -> None:
        found = [f"{count[key][True]} of {count[key].total()}" for count in counts.values()]
        lines.append(f"| {' | '.join([*cells, *found])} |")

    for variant in variants:
        kind = "right" if variant.code is None else "wrong"
        answer = f"{kind} {variant.name.split('_')[0]}"
        add(_key(variant), answer, variant.idea, variant.stage, variant.code or "passes")
    add(f"{lab} solution", "solution", "with the real engine and the script", "all", "passes")
    text = README.read_text(encoding="utf-8")
    begin, end = BEGIN.format(lab), END.format(lab)
    before, after = text.split(begin)[0], text.split(end)[1]
    README.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
