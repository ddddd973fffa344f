"""The part of self-attention that every architecture shares: rotate, store, attend."""

from __future__ import annotations

from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, LayerCache
from wheelpit.kernels.reference import paged_attention, rotate_, write_kv


def cached_attention(
    heads: Tensor, rotations: Tensor, cache: LayerCache, inputs: AttentionInputs
) -> Tensor:
    """Rotate queries and keys (in place), put keys and values into the cache, attend.

    heads: [T, H + 2 * K, D]: queries, keys, values of this step's tokens.
    rotations: [T, 1, D / 2] complex64, from `Rotary`. Returns [T, H * D].
    """
    num_heads = heads.shape[1] - 2 * cache.num_kv_heads
    rotate_(heads[:, : num_heads + cache.num_kv_heads], rotations)
    write_kv(heads[:, num_heads:], cache, inputs.slots)
    return paged_attention(heads, cache, inputs)
