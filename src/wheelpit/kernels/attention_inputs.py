"""What attention needs to know about a step, and the cache it reads and writes.

Built by `runner/inputs.py` and `runner/kv_cache.py`, read by the kernels; the same values for
every layer of the step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's blocks: [2, K, N, S, D], keys at 0 and values at 1, in two shapes.

    A KV head's slots lie together, so that a sequence's gathered blocks are one contiguous
    [tokens, D] matrix per head, as batched products want it.
    """

    by_slot: Tensor
    """[2 * K, N * S, D], for writing tokens."""
    by_block: Tensor
    """[2 * K * N, S * D], for gathering blocks."""
    num_kv_heads: int


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Sequences with one query each, padded to the longest of them.

    block_rows: [2 * K * B * M] int64, rows of LayerCache.by_block in [2, K, B, M] order.
    mask: [K * B, 1, M * S], 0 where a sequence may look and -inf elsewhere. Its dtype is the one
    in which the group attends.
    """

    num_sequences: int
    block_rows: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Several consecutive queries of one sequence.

    block_rows: [2 * K * M] int64, as in DecodeGroup; None if the chunk is the sequence's start.
    mask: [num_tokens, num_keys] bool, True where a query may look; None is plain causal (only
    without block_rows).
    """

    num_tokens: int
    num_keys: int
    block_rows: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """Which tokens of the step belong together and where their keys and values go.

    slots: [T] int64, where each token's key and value are written.
    """

    slots: Tensor
    decodes: tuple[DecodeGroup, ...]
    chunks: tuple[PrefillChunk, ...]
