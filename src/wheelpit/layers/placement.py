"""Where a model's weights live and in which type: passed to every layer's constructor."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Placement:
    """The dtype of weights and activations, and their device.

    The residual stream, norms and logits are float32 whatever the dtype.
    """

    dtype: torch.dtype
    device: torch.device
