"""Root-mean-square normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wheelpit.kernels.reference import rms_norm
from wheelpit.layers.placement import Placement


class RMSNorm(nn.Module):
    """Normalise the last dimension; the output has the model's dtype.

    The weight, float32, is written by the loader, then sealed by `pack()`.
    """

    def __init__(self, size: int, eps: float, placement: Placement) -> None:
        super().__init__()
        weight = torch.empty(size, dtype=torch.float32, device=placement.device)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.dtype = placement.dtype
        self.floor = torch.tensor(math.sqrt(size * eps), device=placement.device)
        self.gain = weight

    def pack(self) -> None:
        """Bring the weight into the form the kernel takes."""
        self.gain = self.weight * math.sqrt(len(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., size], any float dtype."""
        return rms_norm(x, self.gain, self.floor).to(self.dtype)
