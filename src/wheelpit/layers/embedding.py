"""The table of token embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wheelpit.layers.placement import Placement


class Embedding(nn.Module):
    """Look up each token's row; the start of the residual stream."""

    def __init__(self, vocab_size: int, hidden_size: int, placement: Placement) -> None:
        super().__init__()
        table = torch.empty(vocab_size, hidden_size, dtype=placement.dtype, device=placement.device)
        self.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids: [T] int64. Returns a new [T, E], float32."""
        return self.weight.index_select(0, token_ids).float()
