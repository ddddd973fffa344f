"""Linear layers: one matrix product for several projections of the same input.

A few rows of bfloat16 may be multiplied by the plain weight, which is streamed from memory as it
lies, in less time than by the packed one; or not, as `runner/compute_plan.py` finds out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wheelpit.kernels import onednn
from wheelpit.layers.placement import Placement
from wheelpit.layers.stored import Stored, interleaved

MOST_KEPT_BYTES = 16 * 2**20
"""Larger weights are not held in both layouts: memory is dearer there."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What a checkpoint stores as one linear layer.

    rotary_dim: if its outputs are heads to be rotated, their size; their halves are interleaved
    when loaded, as `kernels/reference.rotate_` wants them.
    """

    num_outputs: int
    rotary_dim: int | None = None


class Linear:
    """x W^T + b, where W may stack the projections that a checkpoint stores one by one.

    Written by the loader through `stored()`, then sealed by `pack()`.
    """

    def __init__(
        self,
        in_features: int,
        projections: dict[str, Projection],
        has_bias: bool,
        placement: Placement,
    ) -> None:
        """projections: by their names in the checkpoint, in the order of the outputs."""
        self.projections = projections
        self._plain_rows = placement.plain_rows
        self._operations = placement.operations
        size = sum(projection.num_outputs for projection in projections.values())
        self.weight = placement.empty(size, in_features)
        self.bias = placement.empty(size) if has_bias else None
        self._packed: onednn.PackedLinear | None = None

    def tie(self, weight: Tensor) -> None:
        """Use another layer's weight, which then is loaded there and not here."""
        assert weight.shape == self.weight.shape, (weight.shape, self.weight.shape)
        self.weight = weight
        self.projections = {}

    def stored(self) -> Iterator[tuple[str, Stored]]:
        """Yield the name of each tensor in the checkpoint and where it goes."""
        start = 0
        for name, projection in self.projections.items():
            rows = slice(start, start + projection.num_outputs)
            yield f"{name}.weight", _place(self.weight[rows], projection)
            if self.bias is not None:
                yield f"{name}.bias", _place(self.bias[rows], projection)
            start = rows.stop

    def pack(self) -> None:
        """Lay the weight out for the CPU's kernels, if it has any."""
        if onednn.can_pack(self.weight):
            self._packed = onednn.PackedLinear(self.weight)
            is_small = self.weight.nbytes <= MOST_KEPT_BYTES
            if not is_small or self.weight.dtype != torch.bfloat16:
                self._plain_rows = 0
            if not self._plain_rows:
                self.weight = self.weight.new_empty(0)

    def __call__(self, x: Tensor) -> Tensor:
        """x: [T, in]. Returns [T, out]."""
        if self._packed is not None:
            if 0 < x.shape[0] <= self._plain_rows:
                return self._operations.multiply_rows(self.weight, x, self.bias)
            return self._packed(x, self.bias)
        return F.linear(x, self.weight, self.bias)


def _place(rows: Tensor, projection: Projection) -> Stored:
    if projection.rotary_dim is None:
        return Stored(rows, tuple(rows.shape))
    return interleaved(rows, projection.rotary_dim)
