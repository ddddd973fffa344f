"""What a decoder computes besides products of matrices: the seam between layers and kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, LayerCache


class Operations(Protocol):
    """One implementation for a kind of machine, chosen at the start (`runner/kernel_choice.py`).

    `reference.TorchOperations` is the specification of all.
    """

    @property
    def name(self) -> str:
        """For people: "plain torch", say."""
        ...

    @property
    def pads_decodes(self) -> bool:
        """Must decodes come in groups of like length, each with a mask? Else in one, without."""
        ...

    @property
    def most_plain_rows(self) -> int:
        """So many rows may be worth `multiply_rows`: `runner/compute_plan.py` measures."""
        ...

    @property
    def can_record(self) -> bool:
        """Is `record` worth trying?"""
        ...

    def use_threads(self, number: int) -> None:
        """Compute with so many CPU threads from now on, torch's products included."""
        ...

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """Call `compute` and keep what it does, to do it again with what is in its inputs then.

        Returns a function that returns the same tensor each time; None if it cannot be recorded.
        """
        ...

    def embed(self, table: Tensor, token_ids: Tensor) -> Tensor:
        """Look up rows. table: [V, E]. token_ids: [T] int64. Returns a new [T, E], float32."""
        ...

    def take_rotations(self, table: Tensor, positions: Tensor) -> Tensor:
        """Look up rotations. table: [N, 1, D / 2] complex64. Returns [T, 1, D / 2]."""
        ...

    def multiply_rows(self, weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b, [T, out]. weight: [out, in]. x: [T, in]. bias: [out]. Contiguous.

        The weight is streamed from memory as it lies, once for all rows.
        """
        ...

    def add_norm(
        self, hidden: Tensor, delta: Tensor | None, gain: Tensor, floor: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Add delta to hidden, in place; return the sum, normalised as `reference.rms_norm` does.

        hidden: [T, E] float32, the residual stream. delta: [T, E] in the model's dtype.
        Returns [T, E] in dtype, the model's.
        """
        ...

    def norm_heads_(self, heads: Tensor, gain: Tensor, floor: Tensor) -> None:
        """Normalise each head, in place. heads: [T, h, D], a view with contiguous rows of h * D."""
        ...

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up, [T, I], of gate_up [T, 2 * I]: gate first, then up."""
        ...

    def attend(
        self, heads: Tensor, rotations: Tensor, cache: LayerCache, inputs: AttentionInputs
    ) -> Tensor:
        """Rotate queries and keys (in place), put keys and values into the cache, attend.

        heads: [T, H + 2 * K, D], contiguous: queries, keys, values of this step's tokens.
        rotations: [T, 1, D / 2] complex64, from `Rotary`. Returns [T, H * D].
        """
        ...
