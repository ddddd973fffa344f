"""Rotary position embedding: the table of rotations, with the ways to stretch it.

Su et al. 2021 (arXiv:2104.09864); the application is `kernels/reference.rotate_`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wheelpit.layers.placement import Placement
from wheelpit.layers.rope_scaling import RopeScaling


class Rotary:
    """A table of e^(i * position * frequency), looked up once a step for all layers."""

    def __init__(
        self,
        head_dim: int,
        theta: float,
        scaling: RopeScaling | None,
        num_positions: int,
        placement: Placement,
    ) -> None:
        # float64 on the CPU: at position 100 000 a float32 angle is off by 0.01.
        frequencies = rotary_frequencies(head_dim, theta, scaling)
        angles = torch.outer(torch.arange(num_positions, dtype=torch.float64), frequencies)
        table = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        self.table = table.to(placement.device).unsqueeze(1)  # [positions, 1, D / 2]
        self._operations = placement.operations

    def __call__(self, positions: Tensor) -> Tensor:
        """positions: [T] int64. Returns [T, 1, D / 2] complex64."""
        return self._operations.take_rotations(self.table, positions)


def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Return radians per position of each pair, [D / 2] float64.

    Unscaled: theta^(-2 j / D). Llama 3 divides those of wavelengths longer than
    original / low_freq_factor by `factor`, keeps those shorter than original / high_freq_factor,
    and blends linearly in original / wavelength between the two.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    frequencies = theta**-exponents
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share_kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (share_kept + (1.0 - share_kept) / scaling.factor)
