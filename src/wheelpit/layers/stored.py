"""Where a checkpoint's tensor goes: which part of which weight, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of this shape, reshaped to the view's, is copied into the view."""

    view: Tensor
    shape: tuple[int, ...]

    def load(self, tensor: Tensor) -> None:
        """Copy, converting the dtype."""
        self.view.copy_(tensor.reshape(self.view.shape))


def interleaved(rows: Tensor, head_dim: int) -> Stored:
    """Place rows of heads so that element j of a head is followed by element j + head_dim / 2.

    rows: [heads * head_dim, ...]. Stored are the two halves of each head one after the other.
    """
    pairs = rows.view(-1, head_dim // 2, 2, *rows.shape[1:])
    return Stored(pairs.transpose(1, 2), tuple(rows.shape))
