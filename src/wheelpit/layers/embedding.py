"""The table of token embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from wheelpit.layers.placement import Placement
from wheelpit.layers.stored import Stored


class Embedding:
    """Look up each token's row; the start of the residual stream."""

    def __init__(self, vocab_size: int, hidden_size: int, placement: Placement) -> None:
        self.weight = placement.empty(vocab_size, hidden_size)
        self._operations = placement.operations

    def stored(self) -> Iterator[tuple[str, Stored]]:
        """Yield the name of the tensor in the checkpoint, after the layer's own, and its place."""
        yield "weight", Stored(self.weight, tuple(self.weight.shape))

    def pack(self) -> None:
        """Do nothing: the table is used as it is loaded."""

    def __call__(self, token_ids: Tensor) -> Tensor:
        """token_ids: [T] int64. Returns a new [T, E], float32."""
        return self._operations.embed(self.weight, token_ids)
