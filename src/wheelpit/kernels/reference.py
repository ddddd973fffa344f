"""The operations of a decoder in plain torch: the specification, the CPU path, the test oracle.

Called by `layers/`. Everything here runs on any device. The formulas are the textbook's; their
grouping into torch calls was chosen by `benchmarks/decode_step.py` on a CPU, where a small model's
step is made of the fixed cost of each call (1 to 5 us) rather than of arithmetic.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wheelpit.kernels.attention_inputs import (
    AttentionInputs,
    DecodeGroup,
    LayerCache,
    PrefillChunk,
)

MOST_UPCAST_ROWS = 3
"""See decode_dtype."""


def decode_dtype(num_sequences: int, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Choose the dtype in which a group of decodes attends, given the cache's.

    On a CPU, bmm of a few bfloat16 rows costs 25 us in oneDNN's set-up, 10 us in float32 with MKL;
    from 4 sequences on, converting the keys and values costs more than that (2 threads, Zen 4,
    context 160).
    """
    if device.type == "cpu" and num_sequences <= MOST_UPCAST_ROWS:
        return torch.float32
    return dtype


def rms_norm(x: Tensor, gain: Tensor, floor: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32.

    x: [..., E], any float dtype. gain: [E] float32, sqrt(E) * weight. floor: scalar tensor,
    sqrt(E * eps). With them it is x / hypot(|x|, floor) * gain, half the price of F.rms_norm at a
    decode step's sizes, and of any form that hands a Python number to a torch call (6, 12 and
    12 us for [1, 384]).
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    normalised: Tensor = x.div(norm.hypot_(floor)).mul_(gain)
    return normalised


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, [T, I], of gate_up [T, 2 * I]: gate first, then up."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def rotate_(heads: Tensor, rotations: Tensor) -> None:
    """Turn each head by its token's position, in place.

    heads: [T, H, D]. rotations: [T, 1, D / 2] complex64, e^(i * position * frequency).

    Element j of a head pairs with element j + D / 2 as one complex number. The products are
    written back *interleaved* (real, imaginary, real, ...): attention sees only dot products of
    queries and keys that are permuted alike, and storing complex numbers as they are saves a copy.
    """
    real, imaginary = heads.float().chunk(2, dim=-1)
    turned = torch.complex(real, imaginary).mul_(rotations)
    heads.copy_(torch.view_as_real(turned).flatten(-2))


def write_kv(kv: Tensor, cache: LayerCache, slots: Tensor) -> None:
    """Scatter this step's keys and values into the paged cache, in place.

    kv: [T, 2 * K, D], the cache's dtype: the keys of each KV head, then the values.
    slots: [T] int64, block_id * block_size + offset.
    """
    cache.by_slot.index_copy_(0, slots, kv)


def paged_attention(heads: Tensor, cache: LayerCache, inputs: AttentionInputs) -> Tensor:
    """Attend from every query of the step to all earlier tokens of its sequence and to itself.

    heads: [T, H + 2 * K, D]: queries, keys, values; the keys and values are already in the cache.
    Rows are in the order of `inputs`: the decode groups, then the prefill chunks.
    Returns [T, H * D].
    """
    if not inputs.chunks and len(inputs.decodes) == 1:
        return attend_decodes(heads, cache, inputs.decodes[0])
    attended = []
    row = 0
    for group in inputs.decodes:
        rows = heads[row : row + group.num_sequences]
        attended.append(attend_decodes(rows, cache, group))
        row += group.num_sequences
    for chunk in inputs.chunks:
        rows = heads[row : row + chunk.num_tokens]
        attended.append(attend_chunk(rows, cache, chunk))
        row += chunk.num_tokens
    return torch.cat(attended)


def attend_decodes(heads: Tensor, cache: LayerCache, group: DecodeGroup) -> Tensor:
    """Attend from one query per sequence: softmax(q k^T / sqrt(D) + mask) v, batched.

    heads: [B, H + 2 * K, D]. Returns [B, H * D]. The blocks of all sequences are gathered, padded
    to the longest, and turned head by head into contiguous matrices, so that two batched products
    serve them all.
    """
    num_sequences, _, head_dim = heads.shape
    num_kv_heads = cache.num_kv_heads
    num_heads = heads.shape[1] - 2 * num_kv_heads
    batch = num_kv_heads * num_sequences
    dtype = group.mask.dtype
    gathered = cache.by_block.index_select(0, group.block_ids)
    gathered = gathered.view(num_sequences, -1, 2 * num_kv_heads, head_dim).permute(2, 0, 1, 3)
    kv = gathered.to(dtype, memory_format=torch.contiguous_format)
    keys, values = kv.contiguous().view(2, batch, -1, head_dim).unbind(0)  # [K * B, M * S, D]
    queries = heads[:, :num_heads].view(num_sequences, num_kv_heads, -1, head_dim)
    queries = queries.transpose(0, 1).reshape(batch, -1, head_dim).to(dtype)
    scores = torch.baddbmm(group.mask, queries, keys.transpose(1, 2), alpha=head_dim**-0.5)
    attended = torch.bmm(torch.softmax(scores, dim=-1), values)  # [K * B, H / K, D]
    attended = attended.view(num_kv_heads, num_sequences, -1).transpose(0, 1)
    return attended.reshape(num_sequences, num_heads * head_dim).to(heads.dtype)


def attend_chunk(heads: Tensor, cache: LayerCache, chunk: PrefillChunk) -> Tensor:
    """Attend from the consecutive queries of one sequence.

    heads: [t, H + 2 * K, D]. Returns [t, H * D]. A chunk that starts its sequence needs no cache:
    its own keys and values are all there are.
    """
    num_tokens, _, head_dim = heads.shape
    num_kv_heads = cache.num_kv_heads
    num_heads = heads.shape[1] - 2 * num_kv_heads
    if chunk.block_ids is None:
        kv = heads[:, num_heads:]
    else:
        gathered = cache.by_block.index_select(0, chunk.block_ids)
        kv = gathered.view(-1, 2 * num_kv_heads, head_dim)[: chunk.num_keys]
    keys, values = kv.transpose(0, 1).view(2, num_kv_heads, 1, -1, head_dim).unbind(0)
    # KV heads are the batch, so that the queries of one share its keys without repeating them.
    queries = heads[:, :num_heads].view(num_tokens, num_kv_heads, -1, head_dim).permute(1, 2, 0, 3)
    shared = (-1, queries.shape[1], -1, -1)
    attended = F.scaled_dot_product_attention(
        queries,
        keys.expand(shared),
        values.expand(shared),
        attn_mask=chunk.mask,
        is_causal=chunk.mask is None,
    )  # [K, H / K, t, D]
    return attended.permute(2, 0, 1, 3).reshape(num_tokens, num_heads * head_dim)
