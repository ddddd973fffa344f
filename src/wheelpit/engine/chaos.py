"""Make an engine fail on purpose: `wheelpit serve --chaos "kill=0.01,hang=0.005,slow=0.02"`.

Runs as the engine process in place of `worker.py`, and wraps whatever runner that loads. Before
each step it draws, and the process kills itself, hangs for good, or waits for a moment. The front
end knows nothing of it: what it does about it is what it does about real failures.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from wheelpit.config import EngineConfig, require
from wheelpit.engine.core import Runner
from wheelpit.errors import ConfigError
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch

CHAOTIC_WORKER = ("-m", "wheelpit.engine.chaos")
"""In place of `process.WORKER`; `Chaos.worker` adds what is to fail."""

FLAG = "--chaos="
SLOW_S = 0.5
"""How much longer a slow step takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """Probabilities of each step. kill: like a crash. hang: it never ends. slow: by SLOW_S."""

    kill: float = 0.0
    hang: float = 0.0
    slow: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value: float = getattr(self, field.name)
            require(0.0 <= value <= 1.0, f"chaos: {field.name}", value, "in [0, 1]")
        total = self.kill + self.hang + self.slow
        require(total <= 1.0, "chaos", total, "at most 1 in all")

    @classmethod
    def parse(cls, text: str) -> Chaos:
        """Read "kill=0.01,slow=0.02"; what is left out is 0. ConfigError."""
        given: dict[str, float] = {}
        names = [field.name for field in fields(cls)]
        for part in text.split(","):
            name, _, value = part.strip().partition("=")
            try:
                number = float(value)
            except ValueError:
                number = float("nan")
            if name not in names or name in given or number != number:
                raise ConfigError(
                    f"chaos is {text!r}, must be probabilities of "
                    "each step, such as kill=0.01,hang=0.005,slow=0.02"
                )
            given[name] = number
        return cls(**given)

    def __str__(self) -> str:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ",".join(f"{name}={value:g}" for name, value in named if value)

    @property
    def worker(self) -> tuple[str, ...]:
        """What Python runs as the engine process."""
        return (*CHAOTIC_WORKER, f"{FLAG}{self}")


class ChaoticRunner:
    """Another runner, whose steps fail now and then. Used by the engine process's thread."""

    def __init__(
        self,
        runner: Runner,
        chaos: Chaos,
        draw: Callable[[], float],
        fail: Callable[[str], None],
    ) -> None:
        """draw: a number from [0, 1) for each step. fail: does what it is told the name of."""
        self._runner = runner
        self._chaos = chaos
        self._draw = draw
        self._fail = fail
        self.num_blocks = runner.num_blocks
        self.block_size = runner.block_size
        self.vocab_size = runner.vocab_size
        self.dtype = runner.dtype
        self.compute_plan = runner.compute_plan
        self.device = runner.device
        self.forward_s = runner.forward_s

    def run(self, batch: ScheduledBatch) -> list[SampledToken]:
        """As the other runner does, if nothing happens before."""
        drawn = self._draw()
        for field in fields(self._chaos):
            probability: float = getattr(self._chaos, field.name)
            if drawn < probability:
                self._fail(field.name)
                break
            drawn -= probability
        sampled = self._runner.run(batch)
        self.forward_s = self._runner.forward_s
        return sampled


def fail(kind: str) -> None:
    """Do it to this process."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        while True:
            time.sleep(3600.0)
    elif kind == "slow":
        time.sleep(SLOW_S)


def chaos_of(arguments: Sequence[str]) -> Chaos:
    """Find what is to fail among a worker's arguments."""
    (text,) = (word.removeprefix(FLAG) for word in arguments if word.startswith(FLAG))
    return Chaos.parse(text)


def _main() -> int:
    from wheelpit.engine.worker import import_runner, load_model_runner, main

    chaos = chaos_of(sys.argv)

    def load_runner(config: EngineConfig, on_phase: Callable[[str, float], None]) -> Runner:
        # Each process draws anew: one that failed early would fail as early again.
        draw = random.Random(os.urandom(16)).random
        return ChaoticRunner(load_model_runner(config, on_phase), chaos, draw, fail)

    return main(load_runner, import_runner)


if __name__ == "__main__":
    sys.exit(_main())
