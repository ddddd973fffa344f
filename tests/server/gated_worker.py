"""An engine process that makes a step only when a test says so.

The test holds one end of a FIFO, the process reads a byte of it before each step. So a test knows
which requests run, which wait, and how many steps each thing takes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fakes import FakeRunner
from wheelpit.config import EngineConfig
from wheelpit.engine.worker import main
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch


class Gate:
    """The test's end. Closed at first; `open` lets every step through from then on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        # For reading as well: so it opens without a reader.
        self._fd: int | None = os.open(path, os.O_RDWR)

    @property
    def worker(self) -> list[str]:
        """The command line to give to `AsyncLLMEngine.launch`."""
        return ["-m", "tests.server.gated_worker", f"--gate={self._path}"]

    def step(self, count: int = 1) -> None:
        """Let so many steps through."""
        assert self._fd is not None
        os.write(self._fd, b"." * count)

    def open(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class GatedRunner(FakeRunner):
    """A FakeRunner that asks before it runs."""

    def __init__(self, fd: int, block_size: int) -> None:
        super().__init__(num_blocks=4096, block_size=block_size, vocab_size=259)
        self._fd = fd

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        os.read(self._fd, 1)
        return super().run(batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", required=True)
    given, _ = parser.parse_known_args()

    def load_runner(config: EngineConfig, on_phase: Callable[[str, float], None]) -> GatedRunner:
        fd = os.open(given.gate, os.O_RDONLY)
        on_phase("load", 0.0)
        return GatedRunner(fd, config.cache.block_size)

    sys.exit(main(load_runner))
