"""Root-mean-square normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

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
        self.operations = placement.operations
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

    def __call__(self, hidden: Tensor, delta: Tensor | None = None) -> Tensor:
        """Add delta to hidden, in place, if there is one, and return the normalised sum.

        hidden: [T, E] float32, the residual stream. delta: [T, E]. Returns [T, E].
        """
        return self.operations.add_norm(hidden, delta, self.gain, self.floor, self.dtype)

    def of_heads_(self, heads: Tensor) -> None:
        """Normalise each head in place. heads: [T, h, D], contiguous but for the rows' distance."""
        self.operations.norm_heads_(heads, self.gain, self.floor)
