"""Tests of the labs themselves. Learners' runs happen in processes of their own.

Grading all variants mostly waits (for things that hang on purpose), so it starts in the background
before the first test and is asked for its verdicts last.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from learner import environment  # noqa: E402
from variant import LAB02, load  # noqa: E402


class Batch:
    """One process that grades a list of files; see verdicts.py."""

    def __init__(self, folder: Path, name: str, files: list[Path]) -> None:
        self._out = folder / f"{name}.json"
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "verdicts.py")),
                *(str(self._out), str(LAB02), "contract", *map(str, files)),
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
    folder = tmp_path_factory.mktemp("variants")
    everything = [*load("lab02", "wrong"), *load("lab02", "right")]
    files = [variant.build(LAB02, folder) for variant in everything]
    started = [Batch(folder, str(half), files[half::2]) for half in range(2)]
    yield started
    for batch in started:
        batch.kill()


@pytest.fixture(scope="session")
def verdicts(batches) -> dict[str, dict]:
    """Variant -> verdict."""
    return {name: found for batch in batches for name, found in batch.verdicts().items()}


@pytest.fixture
def judge(tmp_path):
    """Grade files of a test's own, given as texts; name -> verdict."""

    def grade(texts: dict[str, str]) -> dict[str, dict]:
        files = []
        for name, text in texts.items():
            files.append(tmp_path / f"{name}.py")
            files[-1].write_text(text, encoding="utf-8")
        return Batch(tmp_path, "verdicts", files).verdicts()

    return grade
