"""What was recorded is computed again with other values; what could not be is not recorded."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.kernels.attention_case import random
from wheelpit.kernels.compiled import CompiledOperations, load
from wheelpit.kernels.reference import TorchOperations


@pytest.fixture
def compiled(kernel_library: Path) -> CompiledOperations:
    return CompiledOperations(load(kernel_library), torch.bfloat16)


def gated(compiled: CompiledOperations, weight: Tensor, x: Tensor) -> Tensor:
    """Some calls, each with the output of the one before."""
    return compiled.silu_and_mul(compiled.multiply_rows(weight, x.view(1, -1), None))[:, 2:]


def test_a_recording_computes_what_is_in_its_inputs_now(compiled: CompiledOperations) -> None:
    weight, x = random(40, 48).bfloat16(), random(48, seed=1).bfloat16()
    replay = compiled.record(lambda: gated(compiled, weight, x))
    assert replay is not None
    results = set()
    for seed in (1, 2, 3):
        x.copy_(random(48, seed=seed))
        # What the recording wrote to must still be its own.
        gc.collect()
        others = [torch.full((1, 40), 7.0).bfloat16() for _ in range(100)]
        result = replay()
        assert torch.equal(result, gated(compiled, weight, x.clone()))
        results.add(result.data_ptr())
        assert all((other == 7.0).all() for other in others)
    assert len(results) == 1


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x + 1.0,
        lambda x: x.float(),
        lambda x: x[torch.tensor([1, 0])],
        lambda x: x.new_empty(3) if x.sum().item() > 0 else x,
        lambda x: torch.mv(x.view(6, 8), x[:8]),
        lambda x: torch.zeros(3),
        lambda x: x.copy_(x),
    ],
)
def test_what_torch_computes_cannot_be_recorded(
    compiled: CompiledOperations, compute: Callable[[Tensor], Tensor]
) -> None:
    """Else it would never change again."""
    x = random(48).bfloat16()
    assert compiled.record(lambda: compute(x)) is None
    # And nothing is kept of the attempt.
    replay = compiled.record(lambda: compiled.silu_and_mul(x.view(1, -1)))
    assert replay is not None
    x.copy_(random(48, seed=5))
    assert torch.equal(replay(), compiled.silu_and_mul(x.view(1, -1)))


def test_errors_are_those_of_the_computation(compiled: CompiledOperations) -> None:
    def compute() -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compiled.record(compute)
    x = random(1, 48).bfloat16()
    assert compiled.silu_and_mul(x).shape == (1, 24)


def test_plain_torch_records_nothing() -> None:
    assert TorchOperations().record(lambda: torch.ones(1)) is None
