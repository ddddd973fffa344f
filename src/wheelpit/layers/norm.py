"""Root-mean-square normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from wheelpit.kernels.reference import rms_norm
from wheelpit.layers.placement import Placement
from wheelpit.layers.stored import Stored, interleaved


class RMSNorm:
    """Normalise the last dimension; the output has the model's dtype.

    The weight, float32, is written by the loader, then sealed by `pack()`.
    """

    def __init__(
        self, size: int, eps: float, placement: Placement, *, is_of_rotary_heads: bool = False
    ) -> None:
        """is_of_rotary_heads: what it normalises has interleaved halves, so its weight has, too."""
        self.weight = torch.empty(size, dtype=torch.float32, device=placement.device)
        self.is_of_rotary_heads = is_of_rotary_heads
        self.dtype = placement.dtype
        self.floor = torch.tensor(math.sqrt(size * eps), device=placement.device)
        self.gain = self.weight

    def stored(self) -> Iterator[tuple[str, Stored]]:
        """Yield the name of the tensor in the checkpoint, after the layer's own, and its place."""
        size = len(self.weight)
        if self.is_of_rotary_heads:
            yield "weight", interleaved(self.weight, size)
        else:
            yield "weight", Stored(self.weight, (size,))

    def pack(self) -> None:
        """Bring the weight into the form the kernel takes."""
        self.gain = self.weight * math.sqrt(len(self.weight))

    def __call__(self, x: Tensor) -> Tensor:
        """x: [..., size], any float dtype."""
        return rms_norm(x, self.gain, self.floor).to(self.dtype)
