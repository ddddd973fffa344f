"""Linear layers on the CPU, each weight in the layouts that are fastest there.

Called by `layers/linear.py`. oneDNN's own layout is two to three times as fast as F.linear, which
searches for a layout on every call. A single row of bfloat16 may be faster still by torch's own
matrix-vector product on the plain weight, which it streams from memory (a decode step of the
built-in model, 2 threads: 8.6 to 4.5 ms on Zen 4), or take twice as long, as on processors with
AMX: `runner/compute_plan.py` finds out.
"""

from __future__ import annotations

import torch
from torch import Tensor

USUAL_ROWS = 16
"""The number of rows the layout is chosen for; other numbers were as fast within noise."""

MOST_KEPT_BYTES = 16 * 2**20
"""Larger weights are not held in both layouts: memory is dearer there."""


def can_pack(weight: Tensor) -> bool:
    """Say whether this build of torch, this CPU and this dtype have the packed kernel."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's stubs
        return False
    if weight.dtype == torch.float32:
        return True
    return weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear:
    """x W^T + b for one weight that `can_pack`. Immutable."""

    def __init__(self, weight: Tensor, *, has_plain_rows: bool) -> None:
        """weight: [out, in]. has_plain_rows: multiply single rows by the plain weight, which is
        kept as well for it, if it is bfloat16 and not too large.
        """
        weight = weight.detach()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, USUAL_ROWS)
        can_be_kept = weight.dtype == torch.bfloat16 and weight.nbytes <= MOST_KEPT_BYTES
        self._plain = weight if has_plain_rows and can_be_kept else None

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x: [T, in], the weight's dtype. Returns [T, out] in that dtype."""
        if self._plain is not None and x.shape[0] == 1:
            product = multiply_one_row(self._plain, x)
            return product if bias is None else product.add_(bias)
        return torch.ops.mkldnn._linear_pointwise.default(x, self._packed, bias, "none", [], "")  # type: ignore[no-any-return]  # operators are untyped


def multiply_one_row(weight: Tensor, x: Tensor) -> Tensor:
    """Return x W^T, [1, out], by torch's own kernel. weight: [out, in]. x: [1, in].

    With oneDNN enabled torch would pass bfloat16 on to it, and take three times as long.
    """
    was_enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return torch.mv(weight, x[0]).unsqueeze(0)
    finally:
        torch._C._set_mkldnn_enabled(was_enabled)
