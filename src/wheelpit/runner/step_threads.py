"""Give each step the number of CPU threads that suits its size."""

from __future__ import annotations

import itertools

import torch

from wheelpit.config import ComputePlan
from wheelpit.kernels.operations import Operations
from wheelpit.models.config import ModelConfig
from wheelpit.runner.inputs import ModelInputs

ONE_THREAD_ELEMENTS = 2**21
"""Elements of keys that one thread reads in a layer sooner than a second is of use: 0.4 ms
(`benchmarks/decode_step.py --ops`, Intel Xeon)."""


class StepThreads:
    """Follows a plan. Changes torch's number of threads, for the time of a step."""

    def __init__(self, plan: ComputePlan, operations: Operations, model: ModelConfig) -> None:
        """The present number of threads is the most that a step gets."""
        self._plan = plan
        self._operations = operations
        self._key_elements = model.num_heads * model.head_dim
        self._most = self._present = torch.get_num_threads()
        operations.use_threads(self._most)

    def __str__(self) -> str:
        groups = itertools.groupby(self._plan.threads, key=lambda limit: limit[1])
        few = [f"{number} up to {[*limits][-1][0]} rows" for number, limits in groups]
        return ", ".join([*few, str(self._most)]) + " threads"

    def prepare(self, inputs: ModelInputs) -> None:
        """Call before a step."""
        self._use(self._number(len(inputs.token_ids), inputs.num_decode_keys))

    def restore(self) -> None:
        """Call after a step: the process may have other uses for torch."""
        self._use(self._most)

    def _use(self, number: int) -> None:
        if number != self._present:
            self._operations.use_threads(number)
            self._present = number

    def _number(self, num_rows: int, num_decode_keys: int) -> int:
        if num_decode_keys * self._key_elements > ONE_THREAD_ELEMENTS:
            return self._most
        for rows, number in self._plan.threads:
            if num_rows <= rows:
                return number
        return self._most
