"""Where a model's weights live, in which type, and what computes there: every layer is told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wheelpit.kernels.operations import Operations


@dataclass(frozen=True, slots=True)
class Placement:
    """The dtype of weights and activations, their device, and its kernels.

    The residual stream, norms and logits are float32 whatever the dtype.
    """

    dtype: torch.dtype
    device: torch.device
    operations: Operations
    plain_rows: int = 0
    """See `ComputePlan`."""

    def empty(self, *shape: int) -> Tensor:
        """Allocate a weight; its values are whatever was in memory."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)
