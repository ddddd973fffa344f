"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wheelpit.kernels.reference import rms_norm
from wheelpit.layers.placement import Placement


class RMSNorm(nn.Module):
    """Normalise the last dimension. Its weight is float32; its output has the model's dtype."""

    def __init__(self, size: int, eps: float, placement: Placement) -> None:
        super().__init__()
        gain = torch.empty(size, dtype=torch.float32, device=placement.device)
        self.weight = nn.Parameter(gain, requires_grad=False)
        self.eps = eps
        self.dtype = placement.dtype

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., size], any float dtype."""
        return rms_norm(x, self.weight, self.eps).to(self.dtype)
