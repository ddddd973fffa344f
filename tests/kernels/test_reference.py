"""Each kernel against the formula written out token by token."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from tests.kernels.attention_case import BLOCK, CPU, HEADS, TOLERANCE, WORK, Case, random
from wheelpit.kernels import onednn
from wheelpit.kernels.reference import (
    TorchOperations,
    multiply_rows,
    rms_norm,
    rotate_,
    silu_and_mul,
)
from wheelpit.layers.norm import RMSNorm
from wheelpit.layers.placement import Placement
from wheelpit.layers.rope_scaling import RopeScaling
from wheelpit.layers.rotary import Rotary, rotary_frequencies
from wheelpit.runner import inputs

OPERATIONS = TorchOperations()
PLACEMENT = Placement(torch.float32, CPU, OPERATIONS)
HEAD_DIM = 8


def test_rms_norm_is_its_formula() -> None:
    for shape in ((1, 5), (7, 48), (3, 2, 16)):
        x = random(*shape) * 3
        norm = RMSNorm(shape[-1], 1e-5, PLACEMENT)
        norm.weight.copy_(random(shape[-1], seed=1))
        norm.pack()
        expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
        torch.testing.assert_close(norm(x), expected)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert rms_norm(torch.zeros(2, 4), torch.ones(4), torch.tensor(0.1)).abs().sum() == 0


def test_silu_and_mul_is_its_formula() -> None:
    x = random(3, 10)
    gate, up = x[:, :5], x[:, 5:]
    torch.testing.assert_close(silu_and_mul(x), gate / (1 + (-gate).exp()) * up)


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 33])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_packed_linear_is_the_plain_one(rows: int, has_bias: bool, dtype: torch.dtype) -> None:
    weight, x = random(24, 40).to(dtype), random(rows, 40, seed=1).to(dtype)
    bias = random(24, seed=2).to(dtype) if has_bias else None
    if not onednn.can_pack(weight):
        pytest.skip("this torch has no oneDNN")
    product = onednn.PackedLinear(weight)(x, bias)
    expected = x.float() @ weight.float().T + (0 if bias is None else bias.float())
    torch.testing.assert_close(product, expected.to(dtype))


def test_a_row_is_multiplied_without_onednn_which_stays_on() -> None:
    was_enabled = torch._C._get_mkldnn_enabled()
    weight, x = random(24, 40).bfloat16(), random(1, 40, seed=1).bfloat16()
    multiply_rows(weight, x, None)
    assert torch._C._get_mkldnn_enabled() == was_enabled


def test_rotation_keeps_the_dot_products_of_rotate_half() -> None:
    """Heads are permuted before the rotation, queries and keys alike: their products stay."""
    positions = torch.tensor([0, 3, 17])
    heads = random(3, 5, HEAD_DIM)
    rotary = Rotary(HEAD_DIM, 100.0, None, 32, PLACEMENT)
    angles = positions[:, None, None] * 100.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    left, right = heads.chunk(2, -1)
    expected = torch.cat(
        (
            left * angles.cos() - right * angles.sin(),
            right * angles.cos() + left * angles.sin(),
        ),
        -1,
    )
    order = torch.arange(HEAD_DIM).view(2, -1).T.flatten()
    for dtype in TOLERANCE:
        rotated = heads[..., order].to(dtype)
        rotate_(rotated[:, 1:4], rotary(positions))
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(
            rotated[:, 1:4].float(), expected[:, 1:4, order], atol=tolerance, rtol=tolerance
        )
        assert torch.equal(rotated[:, [0, 4]], heads[:, [0, 4]][..., order].to(dtype))


def test_llama3_scaling_keeps_fast_and_divides_slow_frequencies() -> None:
    scaling = RopeScaling(
        kind="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    plain = rotary_frequencies(32, 10000.0, None)
    ratios = rotary_frequencies(32, 10000.0, scaling) / plain
    wavelengths = 2 * math.pi / plain
    assert (ratios[wavelengths < 16] == 1).all()
    torch.testing.assert_close(
        ratios[wavelengths > 64], torch.full_like(ratios, 1 / 8)[: sum(wavelengths > 64)]
    )
    assert all(a >= b for a, b in pairwise(ratios.tolist()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), HEADS)
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_paged_attention_is_attention(
    work: list[tuple[int, int]], num_heads: int, num_kv_heads: int, dtype: torch.dtype
) -> None:
    case = Case(work, num_heads, num_kv_heads)
    for ours, expected in zip(case.run(OPERATIONS, dtype), case.expected(dtype), strict=True):
        torch.testing.assert_close(ours, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("window", [1, 3, BLOCK, 7])
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_sliding_window_hides_what_is_older(work: list[tuple[int, int]], window: int) -> None:
    case = Case(work, 4, 2)
    results = zip(
        case.run(OPERATIONS, torch.float32, window),
        case.expected(torch.float32, window),
        strict=True,
    )
    for ours, expected in results:
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=2e-6)


def test_one_padded_group_hides_whole_stretches_of_the_short_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "GROUP_COST_BLOCKS", 10**6)
    case = Case([(1300, 1), (0, 1), (520, 1)], 4, 2)
    for dtype in (torch.float32, torch.bfloat16):
        for ours, expected in zip(case.run(OPERATIONS, dtype), case.expected(dtype), strict=True):
            tolerance = TOLERANCE[dtype]
            torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)
