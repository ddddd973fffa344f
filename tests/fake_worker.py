"""An engine process with a fake runner: everything is real but the model.

Run in place of `python -m wheelpit.engine.worker`: give `worker=fake_worker(...)` to
`AsyncLLMEngine.launch`. Prompts that begin with one of the special ids below make it misbehave.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fakes import FakeRunner
from wheelpit.config import ComputePlan, EngineConfig
from wheelpit.engine.chaos import Chaos, ChaoticRunner, fail
from wheelpit.engine.core import Runner
from wheelpit.engine.worker import main
from wheelpit.errors import ModelLoadError
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch

RAISES = 250
"""A step with such a sequence raises."""
EXITS = 251
"""A step with such a sequence ends the process with status 7."""
HANGS = 252
"""A step with such a sequence never ends."""


def fake_worker(
    *, step_ms: float = 0.0, num_blocks: int = 256, fails: str = "", chaos: str = ""
) -> list[str]:
    """The command line to give to `AsyncLLMEngine.launch`."""
    options = [f"--step-ms={step_ms}", f"--num-blocks={num_blocks}", f"--fails={fails}"]
    if chaos:
        options.append(f"--chaos={chaos}")
    return ["-m", "tests.fake_worker", *options]


class MisbehavingRunner(FakeRunner):
    """A FakeRunner that takes its time, and obeys the special first tokens."""

    def __init__(self, config: EngineConfig, *, step_ms: float, num_blocks: int) -> None:
        super().__init__(
            num_blocks=config.cache.num_blocks or num_blocks,
            block_size=config.cache.block_size,
            vocab_size=259,
        )
        self._pause_s = step_ms / 1000
        # As if each process measured something else.
        self.compute_plan = config.compute_plan or ComputePlan(((os.getpid(), 1),), 0)

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        if self._pause_s:
            time.sleep(self._pause_s)
        for scheduled in batch.sequences:
            first = scheduled.sequence.token_ids[0]
            if first == RAISES:
                raise RuntimeError("told to raise")
            if first == EXITS:
                os._exit(7)
            if first == HANGS:
                time.sleep(3600)
        return super().run(batch)


def load(options: argparse.Namespace, config: EngineConfig) -> MisbehavingRunner:
    if options.fails == "clearly":
        raise ModelLoadError("the fake model is broken on purpose")
    if options.fails == "oddly":
        raise KeyError("odd")
    if options.fails.startswith("waits:"):
        # Until the test closes its end of this FIFO.
        Path(options.fails.removeprefix("waits:")).read_bytes()
    if options.fails == "silently":
        os._exit(5)
    return MisbehavingRunner(config, step_ms=options.step_ms, num_blocks=options.num_blocks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-ms", type=float)
    parser.add_argument("--num-blocks", type=int)
    parser.add_argument("--fails")
    parser.add_argument("--chaos")
    given, _ = parser.parse_known_args()

    def load_runner(config: EngineConfig, on_phase: Callable[[str, float], None]) -> Runner:
        on_phase("load", 0.0)
        runner = load(given, config)
        if given.chaos is None:
            return runner
        draw = random.Random(17).random
        return ChaoticRunner(runner, Chaos.parse(given.chaos), draw, fail)

    sys.exit(main(load_runner))
