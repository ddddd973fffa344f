"""The gated feed-forward block."""

from __future__ import annotations

from torch import Tensor, nn

from wheelpit.kernels.reference import silu_and_mul
from wheelpit.layers.linear import Linear
from wheelpit.layers.placement import Placement


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up in one product."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, has_bias: bool, placement: Placement
    ) -> None:
        super().__init__()
        parts = {"gate_proj": intermediate_size, "up_proj": intermediate_size}
        self.gate_up_proj = Linear(hidden_size, parts, has_bias, placement)
        self.down_proj = Linear(intermediate_size, {"down_proj": hidden_size}, has_bias, placement)

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, E]. Returns [T, E]."""
        return self.down_proj(silu_and_mul(self.gate_up_proj(x)))
