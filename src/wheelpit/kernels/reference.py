"""The operations of a decoder in plain torch: the specification, the CPU path, the test oracle.

Called by `layers/`. Everything here runs on any device. The formulas are the textbook's; their
grouping into torch calls was chosen by `benchmarks/decode_step.py` on a CPU, where a small model's
step is made of the fixed cost of each call (1 to 5 us) rather than of arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wheelpit.kernels.attention_inputs import (
    AttentionInputs,
    DecodeGroup,
    LayerCache,
    PrefillChunk,
)


class TorchOperations:
    """`Operations` by plain torch, on any device and in any dtype."""

    name = "plain torch"
    pads_decodes = True
    most_plain_rows = 1
    can_record = False

    def use_threads(self, number: int) -> None:
        torch.set_num_threads(number)

    def record(self, compute: Callable[[], Tensor]) -> None:
        return None

    def embed(self, table: Tensor, token_ids: Tensor) -> Tensor:
        return table.index_select(0, token_ids).float()

    def take_rotations(self, table: Tensor, positions: Tensor) -> Tensor:
        return table.index_select(0, positions)

    def multiply_rows(self, weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        return multiply_rows(weight, x, bias)

    def add_norm(
        self, hidden: Tensor, delta: Tensor | None, gain: Tensor, floor: Tensor, dtype: torch.dtype
    ) -> Tensor:
        if delta is not None:
            hidden += delta
        return rms_norm(hidden, gain, floor).to(dtype)

    def norm_heads_(self, heads: Tensor, gain: Tensor, floor: Tensor) -> None:
        heads.copy_(rms_norm(heads, gain, floor))

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        return silu_and_mul(gate_up)

    def attend(
        self, heads: Tensor, rotations: Tensor, cache: LayerCache, inputs: AttentionInputs
    ) -> Tensor:
        num_heads = heads.shape[1] - 2 * cache.num_kv_heads
        rotate_(heads[:, : num_heads + cache.num_kv_heads], rotations)
        write_kv(heads[:, num_heads:], cache, inputs.slots)
        return paged_attention(heads, cache, inputs)


def multiply_rows(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b, [T, out]; a single row by torch's own kernel.

    With oneDNN enabled torch would pass bfloat16 on to it, and take three times as long.
    """
    if len(x) > 1:
        return F.linear(x, weight, bias)
    was_enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        product = torch.mv(weight, x[0]).unsqueeze(0)
    finally:
        torch._C._set_mkldnn_enabled(was_enabled)
    return product if bias is None else product.add_(bias)


def rms_norm(x: Tensor, gain: Tensor, floor: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32.

    x: [..., E], any float dtype. gain: [E] float32, sqrt(E) * weight. floor: scalar tensor,
    sqrt(E * eps). With them it is x / hypot(|x|, floor) * gain, half the price of F.rms_norm at a
    decode step's sizes (`benchmarks/decode_step.py --ops`) and of any form that hands a Python
    number to a torch call.
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

    heads: [T, H, D], a view with contiguous rows of D. rotations: [T, 1, D / 2] complex64,
    e^(i * position * frequency).

    A head's pairs are neighbours, (0, 1), (2, 3), ..., and so each is a complex number in memory;
    the usual layout pairs j with j + D / 2. Attention sees only products of queries and keys,
    which are permuted alike (see `layers/stored.interleaved`).
    """
    wide = heads.float()
    pairs = wide.view(*wide.shape[:-1], -1, 2)
    torch.view_as_complex(pairs).mul_(rotations)
    if wide is not heads:
        heads.copy_(wide)


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
    """Attend from one query per sequence, batched over the sequences.

    heads: [B, H + 2 * K, D]. Returns [B, H * D]. The blocks of all sequences are gathered, padded
    to the longest. The query heads that share a KV head stand in for several query tokens: no key
    is repeated, and half the calls of two products and a softmax give the same.
    """
    num_sequences, _, head_dim = heads.shape
    num_kv_heads = cache.num_kv_heads
    num_heads = heads.shape[1] - 2 * num_kv_heads
    gathered = cache.by_block.index_select(0, group.block_ids)
    assert group.mask is not None, "the groups were made for other operations"
    kv = gathered.view(num_sequences, -1, 2, num_kv_heads, head_dim)
    keys, values = kv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, K, M * S, D]
    queries = heads[:, :num_heads].view(num_sequences, num_kv_heads, -1, head_dim)
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask)
    return attended.reshape(num_sequences, num_heads * head_dim)


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
