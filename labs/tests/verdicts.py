"""Grade many files in one process, without pytest round each: `verdicts.py OUT LAB STAGES FILE...`

The stages, tests and verdicts are those that a learner gets; only pytest's own work is left out,
which is most of the time. STAGES is "contract" (all that need no engine), "all", or the ids of the
stages to grade of each file, in the files' order: "A,C,C".
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
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
    out, lab, wanted, files = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    each = [wanted] * len(files) if wanted in ("contract", "all") else wanted.split(",")
    sys.path.insert(0, str(LABS))
    tests = load_tests(lab)
    graded = (grade(tests, Path(file), one) for file, one in zip(files, each, strict=True))
    verdicts = [asdict(verdict) for verdict in graded]
    out.write_text(json.dumps(verdicts), encoding="utf-8")
    # Some files leave threads behind that never end.
    os._exit(0)


if __name__ == "__main__":
    main()
