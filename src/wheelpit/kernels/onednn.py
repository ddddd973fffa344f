"""Linear layers on the CPU in oneDNN's own layout.

Called by `layers/linear.py`. It is two to three times as fast as F.linear, which searches for a
layout on every call.
"""

from __future__ import annotations

import torch
from torch import Tensor

USUAL_ROWS = 16
"""The number of rows the layout is chosen for; other numbers were as fast within noise."""


def can_pack(weight: Tensor) -> bool:
    """Say whether this build of torch, this CPU and this dtype have the packed kernel."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's stubs
        return False
    if weight.dtype == torch.float32:
        return True
    return weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear:
    """x W^T + b for one weight that `can_pack`. Immutable."""

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in]."""
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), USUAL_ROWS)

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x: [T, in], the weight's dtype. Returns [T, out] in that dtype."""
        return torch.ops.mkldnn._linear_pointwise.default(x, self._packed, bias, "none", [], "")  # type: ignore[no-any-return]  # operators are untyped
