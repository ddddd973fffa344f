"""The gated feed-forward block."""

from __future__ import annotations

from torch import Tensor

from wheelpit.layers.linear import Linear, Projection
from wheelpit.layers.placement import Placement


class GatedMLP:
    """down(silu(gate(x)) * up(x)), gate and up in one product."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, has_bias: bool, placement: Placement
    ) -> None:
        self.operations = placement.operations
        wide, narrow = Projection(intermediate_size), Projection(hidden_size)
        gate_up = {"gate_proj": wide, "up_proj": wide}
        self.gate_up_proj = Linear(hidden_size, gate_up, has_bias, placement)
        self.down_proj = Linear(intermediate_size, {"down_proj": narrow}, has_bias, placement)

    def __call__(self, x: Tensor) -> Tensor:
        """x: [T, E]. Returns [T, E]."""
        return self.down_proj(self.operations.silu_and_mul(self.gate_up_proj(x)))
