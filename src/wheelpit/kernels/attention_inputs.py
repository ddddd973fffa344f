"""What attention needs to know about a step, and the cache it reads and writes.

Built by `runner/inputs.py` and `runner/kv_cache.py`, read by the kernels; the same values for
every layer of the step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's blocks: [N, S, 2 * K, D], a token's keys and then its values, in two shapes.

    A token's heads lie together, and so do a block's tokens: scattered blocks are then read in the
    longest possible pieces, which matters more than what the products would like best.
    """

    by_slot: Tensor
    """[N * S, 2 * K, D], for writing tokens."""
    by_block: Tensor
    """[N, S * 2 * K * D], for gathering blocks."""

    @property
    def num_kv_heads(self) -> int:
        return self.by_slot.shape[1] // 2

    @property
    def block_size(self) -> int:
        return self.by_slot.shape[0] // self.by_block.shape[0]


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Sequences with one query each, padded to the longest of them.

    block_ids: [B * M] int64, each sequence's blocks in turn.
    positions: [B] int64, of the queries.
    window: how many keys back a query sees, itself included; None is all.
    mask: [B, 1, 1, M * S] in the model's dtype, 0 where a sequence may look and -inf elsewhere;
    None unless `Operations.pads_decodes`.
    """

    num_sequences: int
    block_ids: Tensor
    positions: Tensor
    window: int | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Several consecutive queries of one sequence.

    block_ids: [M] int64, the sequence's; None if the chunk is its start.
    mask: [num_tokens, num_keys] bool, True where a query may look; None is plain causal (only
    without block_ids).
    """

    num_tokens: int
    num_keys: int
    block_ids: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """Which tokens of the step belong together and where their keys and values go.

    slots: [T] int64, where each token's key and value are written.
    """

    slots: Tensor
    decodes: tuple[DecodeGroup, ...]
    chunks: tuple[PrefillChunk, ...]
