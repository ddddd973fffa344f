"""Tests of the labs themselves. Learners' runs happen in processes of their own.

Grading all variants mostly waits (for things that hang on purpose), so it starts in the background
before the first test and is asked for its verdicts last.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A job in the background of a shell ignores Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from learner import environment  # noqa: E402
from variant import LAB02, labs, load, stages_to_grade  # noqa: E402


class Batch:
    """One process that grades a list of files; see verdicts.py."""

    def __init__(self, lab: Path, out: Path, files: list[Path], stages: str = "contract") -> None:
        self._out = out
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "verdicts.py")),
                *(str(out), str(lab), stages, *map(str, files)),
            ],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def verdicts(self) -> dict[str, dict]:
        """Wait for the end; file name -> verdict."""
        _, complaints = self._process.communicate(timeout=110)
        assert self._process.returncode == 0, complaints
        return {verdict["name"]: verdict for verdict in json.loads(self._out.read_text())}

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session", autouse=True)
def batches(request, tmp_path_factory):
    """Start grading the variants, if a test of this run looks at them."""
    if not any("verdicts" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield []
        return
    started = []
    for lab, source in labs().items():
        folder = tmp_path_factory.mktemp(lab)
        everything = [*load(lab, "wrong"), *load(lab, "right")]
        for half in range(2):
            part = everything[half::2]
            files = [each.build(folder) for each in part]
            batch = Batch(source, folder / f"{half}.json", files, stages_to_grade(part))
            started.append((lab, batch))
    yield started
    for _, batch in started:
        batch.kill()


@pytest.fixture(scope="session")
def verdicts(batches) -> dict[tuple[str, str], dict]:
    """(Lab, variant) -> verdict."""
    return {
        (lab, name): verdict for lab, batch in batches for name, verdict in batch.verdicts().items()
    }


@pytest.fixture
def judge(tmp_path):
    """Grade answers to Lab 02 of a test's own, given as texts; name -> verdict."""

    def grade(texts: dict[str, str]) -> dict[str, dict]:
        files = []
        for name, text in texts.items():
            files.append(tmp_path / f"{name}.py")
            files[-1].write_text(text, encoding="utf-8")
        return Batch(LAB02, tmp_path / "verdicts.json", files).verdicts()

    return grade
