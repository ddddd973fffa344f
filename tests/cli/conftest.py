"""A stand-in server for the commands that talk to one, and `wheelpit serve` itself."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.fake_server import FakeServer
from tests.cli.served import WHEELPIT, Start
from tests.cli.terminal import Terminal
from tests.tiny_model import make_model_folder


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    """Start `wheelpit` on a terminal; ended with the test."""
    terminals: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        terminals.append(Terminal(*arguments))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `wheelpit serve` on the tiny model with a fake engine; ended with the test."""
    folder = make_model_folder(tmp_path / "tiny")
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, fails: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*WHEELPIT, f"--fails={fails}", "serve", str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
