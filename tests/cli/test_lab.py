"""`wheelpit lab`: the list, a learner's folder, and whose work is never touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import run
from wheelpit.cli import lab as command

ROOT = Path(__file__).resolve().parents[2]
NAME = "lab02_online_serving"
TITLES = {
    "01": "Basic Inference",
    "02": "Online Serving with AsyncEngine",
    "03": "Going Further",
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_labs_are_listed_with_what_starts_them():
    done = run("lab")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("  0")]
    assert len(lines) == len(TITLES)
    for (number, title), line in zip(TITLES.items(), lines, strict=True):
        assert line.split("  ")[1:3] == [number, title]
        assert line.endswith(f"wheelpit lab start {number}")
    assert done.stdout.isascii()


@pytest.mark.parametrize("number", ["02", "2", "lab02"])
def test_start_makes_a_folder_that_needs_nothing_else(here, number):
    done = run("lab", "start", number)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (here / NAME).iterdir()}
    assert names == {
        *("README.md", "starter.py", "solution.py", "test_lab.py", "requirements.txt"),
        *("conftest.py", "pytest.ini", "AGENTS.md", "labkit"),
    }
    assert f"cd {NAME}" in done.stdout
    assert not [path for path in here.rglob("*") if path.name in ("__pycache__", "tests")]
    assert ".." not in (here / NAME / "requirements.txt").read_text()


def test_each_lab_brings_all_of_its_own_files(here):
    for folder in (ROOT / "labs").glob("lab[0-9][0-9]_*"):
        assert run("lab", "start", folder.name[3:5]).returncode == 0
        own = {path.name for path in folder.iterdir() if path.is_file()}
        copied = {path.name for path in (here / folder.name).iterdir()}
        assert copied == own | {"pytest.ini", "AGENTS.md", "labkit"}


@pytest.mark.parametrize(
    ("number", "status", "todo", "last"),
    [
        ("01", 1, "1", "TODO 1 is still open: starter.py, line "),
        ("02", 1, "1", "TODO 1 is still open: starter.py, line "),
        ("03", 0, "A", "E  not started: starter.py, line "),
    ],
)
def test_what_start_says_to_type_next_works(here, number, status, todo, last):
    """Outside of the clone, and with labkit from the learner's folder alone."""
    next_lines = run("lab", "start", number).stdout.splitlines()
    assert "  python starter.py                   what is open?" in next_lines
    [folder] = here.iterdir()
    assert f"  cd {folder.name}" in next_lines
    done = subprocess.run(
        [sys.executable, "starter.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.splitlines()[-1].startswith(last)
    hint = subprocess.run(
        [sys.executable, "-S", "-m", "labkit.hint", todo],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert f"Still stuck? python -m labkit.hint {todo} 2" in hint.stdout, hint.stderr


def test_a_learners_work_is_never_overwritten(here):
    assert run("lab", "start", "02").returncode == 0
    starter = here / NAME / "starter.py"
    starter.write_text("my work")
    done = run("lab", "start", "02")
    assert done.returncode == 2
    assert "exists already and may hold your work" in done.stderr
    assert starter.read_text() == "my work"


def test_an_unknown_lab_is_named(here):
    done = run("lab", "start", "77")
    assert done.returncode == 2
    assert done.stderr.startswith("wheelpit: error: there is no lab 77; there are ")
    assert not list(here.iterdir())


@pytest.mark.parametrize("words", [["start"], ["stop"], ["stop", "02"]])
def test_other_words_are_answered_with_the_two_that_exist(words):
    done = run("lab", *words)
    assert done.returncode == 2
    assert "wheelpit lab start 02 starts one" in done.stderr


def test_an_editable_install_has_the_labs_of_its_clone():
    assert command.labs_folder() == ROOT / "labs"


def test_an_installed_wheel_has_its_own(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "wheelpit"
    (package / "labs" / "labkit").mkdir(parents=True)
    monkeypatch.setattr("wheelpit.__file__", str(package / "__init__.py"))
    assert command.labs_folder() == package / "labs"


def test_the_wheel_has_what_a_learners_folder_is_made_of_and_not_the_labs_tests():
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    names = {file.distribution_path for file in builder.recurse_included_files()}
    for name in (
        *(f"{NAME}/starter.py", "labkit/hints.toml", "pytest.ini", "AGENTS.md"),
        *("lab03_going_further/kill_the_engine.py", "labkit/hints_lab03.toml"),
    ):
        assert f"wheelpit/labs/{name}" in names
    assert not [name for name in names if name.startswith("wheelpit/labs/tests")]


def test_an_installation_without_labs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("wheelpit.__file__", str(tmp_path / "a" / "wheelpit" / "__init__.py"))
    done = run("lab")
    assert done.returncode == 2
    assert "has no labs: reinstall Wheelpit" in done.stderr
