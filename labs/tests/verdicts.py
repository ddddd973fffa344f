"""Grade many files in one process, without pytest round each: `verdicts.py OUT LAB STAGES FILE...`

The stages, tests and verdicts are those that a learner gets; only pytest's own work is left out,
which is most of the time. STAGES is "contract" (all that need no engine), "all", or the ids of the
stages to grade of each file, in the files' order: "A,C,C". With --times N, all of it N times.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

LABS = Path(__file__).resolve().parents[1]
ENGINE_STAGES = ("live", "script")


@dataclass(frozen=True)
class Verdict:
    """What the grader said of one file."""

    name: str
    states: dict[str, str]
    codes: dict[str, str]
    blocks: dict[str, str]
    seconds: float


def grade(tests: ModuleType, target: Path, wanted: str) -> Verdict:
    """Run the wanted stages of a lab on one file."""
    from labkit.lab import Lab

    os.environ["LAB_TARGET"] = str(target)
    began = time.monotonic()
    lab = Lab(tests)
    try:
        for stage in lab.texts.stages:
            is_contract = stage.id not in ENGINE_STAGES
            if wanted in ("all", stage.id) or (wanted == "contract" and is_contract):
                lab.prove(stage.id)
    finally:
        lab.close()
    seconds = round(time.monotonic() - began, 3)
    return Verdict(target.stem, lab.ladder.states, lab.ladder.codes, lab.ladder.blocks, seconds)


def load_tests(lab: Path) -> ModuleType:
    """Import a lab's test_lab.py under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"{lab.name}_tests", lab / "test_lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("lab", type=Path)
    parser.add_argument("stages")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--times", type=int, default=1)
    given = parser.parse_args()
    is_for_all = given.stages in ("contract", "all")
    each = [given.stages] * len(given.files) if is_for_all else given.stages.split(",")
    sys.path.insert(0, str(LABS))
    tests = load_tests(given.lab)
    # Whoever dropped one has been told.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    work = list(zip(given.files, each, strict=True)) * given.times
    verdicts = [asdict(grade(tests, file, stage)) for file, stage in work]
    given.out.write_text(json.dumps(verdicts), encoding="utf-8")
    # Some files leave threads behind that never end.
    os._exit(0)


if __name__ == "__main__":
    main()
