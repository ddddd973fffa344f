"""Linear layers on the CPU by oneDNN, with weights laid out for it once.

Called by `layers/linear.py`. At a decode step's sizes F.linear takes 1.2 to 1.8 times as long: it
brings the weight into its layout on every call (`benchmarks/decode_step.py --ops`, Zen 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

USUAL_ROWS = 16
"""The number of rows the layout is chosen for; other numbers were as fast within noise."""


def can_pack(weight: Tensor) -> bool:
    """Say whether this build of torch, this CPU and this dtype have the packed kernel."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch's
    if weight.device.type != "cpu" or not has_onednn:
        return False
    if weight.dtype == torch.float32:
        return True
    return weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linear(weight: Tensor) -> Tensor:
    """Return weight [out, in] in oneDNN's own layout: an opaque tensor for `packed_linear`."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), USUAL_ROWS)
    return packed


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + bias, [T, out] in x's dtype. x: [T, in], the packed weight's dtype."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
    return product
