"""Measure at the start how this machine's CPU multiplies best, and plan the steps by it.

A decode step of a small model is many short products. Cut into two, most of them wait longer for
the second thread to wake up than it takes off them; and with anything else to do for the
other core, such as this engine's own front end, they wait for that, too. A large model's products
are bound by memory, which one core cannot exhaust. Which layout is best for a few rows depends on
the processor. None of this can be known beforehand, and all of it takes milliseconds to try.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from wheelpit.config import ComputePlan
from wheelpit.kernels import onednn
from wheelpit.kernels.operations import Operations
from wheelpit.models.config import ModelConfig

MEASURED_ROWS = (1, 2, 4, 8, 16, 64)
"""One sequence decoding, a few, and some; steps of more rows than the last get all threads."""

MOST_MEASURED_WEIGHTS = 2**21
"""A larger layer is measured by a slice of it: start-up may not wait for the answer."""

NUM_ROUNDS = 8

WORTH_DOUBLING = 1.3
"""Twice as many threads are worth it if they are so many times as fast."""

WORTH_RECORDING = 1.3
"""A plain product may take so many times as long as a packed one, if it can be recorded: then the
step is spared all calls from Python (`kernels/recording.py`)."""


class LayerProducts:
    """The linear products of one layer of a model, with weights of no meaning."""

    def __init__(self, model: ModelConfig, dtype: torch.dtype, operations: Operations) -> None:
        queries = model.num_heads * model.head_dim
        keys = model.num_kv_heads * model.head_dim
        self._dtype = dtype
        self._operations = operations
        self._products: list[tuple[float, torch.Tensor, onednn.PackedLinear]] = []
        """How many times as large the layer is; its weight, plain and packed."""
        for out_features, in_features in (
            (queries + 2 * keys, model.hidden_size),
            (model.hidden_size, queries),
            (2 * model.intermediate_size, model.hidden_size),
            (model.hidden_size, model.intermediate_size),
        ):
            measured = max(1, min(out_features, MOST_MEASURED_WEIGHTS // in_features))
            weight = torch.ones(measured, in_features, dtype=dtype)
            self._products.append((out_features / measured, weight, onednn.PackedLinear(weight)))

    def seconds(self, rows: int) -> float:
        """How long all of them take, with torch's present number of threads."""
        total = 0.0
        for scale, weight, packed in self._products:
            x = torch.ones(rows, weight.shape[1], dtype=self._dtype)
            total += scale * _fastest(partial(packed, x, None))
        return total

    def plain_seconds(self, rows: int) -> float:
        """Likewise with the plain weights."""
        total = 0.0
        for scale, weight, _ in self._products:
            x = torch.ones(rows, weight.shape[1], dtype=self._dtype)
            total += scale * _fastest(partial(self._operations.multiply_rows, weight, x, None))
        return total


def make_plan(
    model: ModelConfig, dtype: torch.dtype, operations: Operations
) -> tuple[ComputePlan, list[float]]:
    """Return the best plan for this dtype, and the seconds of a layer's products by MEASURED_ROWS.

    Leaves the number of threads as it finds torch's: the most that a step may have.
    """
    most = torch.get_num_threads()
    products = LayerProducts(model, dtype, operations)
    threads, seconds = [], []
    plain_rows = 0
    # In float32, what a sequence gets must not depend on how many others there are.
    may_be_plain = dtype == torch.bfloat16
    try:
        for rows in MEASURED_ROWS:
            may_be_plain &= rows <= operations.most_plain_rows
            best: tuple[float, int, bool] | None = None
            for number in _numbers_of_threads(most):
                operations.use_threads(number)
                found = (products.seconds(rows), number, False)
                if may_be_plain:
                    plain = products.plain_seconds(rows)
                    if operations.can_record:
                        plain /= WORTH_RECORDING
                    found = min(found, (plain, number, True))
                if best is not None and best[0] < found[0] * WORTH_DOUBLING:
                    break
                best = found
            assert best is not None, "at least one number of threads was tried"
            seconds.append(best[0])
            threads.append((rows, best[1]))
            may_be_plain = best[2]
            if may_be_plain:
                plain_rows = rows
    finally:
        operations.use_threads(most)
    return ComputePlan(tuple(threads), plain_rows), seconds


def _numbers_of_threads(most: int) -> Iterator[int]:
    number = 1
    while number < most:
        yield number
        number *= 2
    yield most


def _fastest(product: Callable[[], object]) -> float:
    times = []
    for _ in range(NUM_ROUNDS + 1):
        started = time.perf_counter()
        product()
        times.append(time.perf_counter() - started)
    return min(times[1:])
