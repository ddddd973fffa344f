"""Linear layers: one matrix product for several projections of the same input."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wheelpit.kernels import onednn
from wheelpit.layers.placement import Placement


class Linear(nn.Module):
    """x W^T + b, where W may stack the projections that a checkpoint stores one by one.

    Written by the loader through `shards()`, then sealed by `pack()`.
    """

    def __init__(
        self, in_features: int, parts: dict[str, int], has_bias: bool, placement: Placement
    ) -> None:
        """parts: the checkpoint's name of each projection and its number of outputs, stacked."""
        super().__init__()
        self.parts = parts
        out_features = sum(parts.values())
        self.weight = _empty((out_features, in_features), placement)
        self.bias = _empty((out_features,), placement) if has_bias else None
        self._packed: Tensor | None = None

    def tie(self, weight: nn.Parameter) -> None:
        """Use another layer's weight, which then is loaded there and not here."""
        assert weight.shape == self.weight.shape, (weight.shape, self.weight.shape)
        self.weight = weight
        self.parts = {}

    def shards(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name of each stored tensor and the view of ours that it fills."""
        start = 0
        for name, size in self.parts.items():
            yield f"{name}.weight", self.weight[start : start + size]
            if self.bias is not None:
                yield f"{name}.bias", self.bias[start : start + size]
            start += size

    def pack(self) -> None:
        """Lay the weight out for the CPU's kernel, if it has one, and let go of the plain copy."""
        if onednn.can_pack(self.weight):
            self._packed = onednn.pack_linear(self.weight)
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, in]. Returns [T, out]."""
        if self._packed is not None:
            return onednn.packed_linear(x, self._packed, self.bias)
        return F.linear(x, self.weight, self.bias)


def _empty(shape: tuple[int, ...], placement: Placement) -> nn.Parameter:
    values = torch.empty(shape, dtype=placement.dtype, device=placement.device)
    return nn.Parameter(values, requires_grad=False)
