"""Where a model's weights live and in which type: passed to every layer's constructor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Placement:
    """The dtype of weights and activations, and their device.

    The residual stream, norms and logits are float32 whatever the dtype.
    """

    dtype: torch.dtype
    device: torch.device

    def empty(self, *shape: int) -> Tensor:
        """Allocate a weight; its values are whatever was in memory."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)
