"""A stand-in server for the commands that talk to one, and `wheelpit serve` itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.fake_server import FakeServer
from tests.cli.served import Served, Start
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
    processes: list[Served] = []

    def start(*arguments: str, fails: str = "") -> Served:
        log = tmp_path / f"log-{len(processes)}"
        processes.append(Served(log, f"--fails={fails}", "serve", str(folder), *arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.end()
