"""Attention over a paged cache, beside the formula written out token by token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wheelpit.kernels.operations import Operations
from wheelpit.kernels.reference import write_kv
from wheelpit.request import SamplingParams
from wheelpit.runner.inputs import InputLayout, build_inputs
from wheelpit.runner.kv_cache import KVCache
from wheelpit.runner.token_history import TokenHistory
from wheelpit.scheduling.batch import ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.sequence import Sequence

CPU = torch.device("cpu")
BLOCK = 4
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}

HEADS = [(4, 4), (4, 2), (6, 3), (3, 1), (8, 1)]
"""Query heads and KV heads."""

WORK = {
    "one token": [(0, 1)],
    "one decode": [(9, 1)],
    "prompts around a block": [(0, BLOCK - 1), (0, BLOCK), (0, BLOCK + 1)],
    "decodes around a block": [(BLOCK - 2, 1), (BLOCK - 1, 1), (BLOCK, 1), (BLOCK + 1, 1)],
    "chunks around a block": [(BLOCK - 1, 3), (BLOCK, 2), (BLOCK + 1, BLOCK)],
    "mixed": [(5, 1), (0, 6), (30, 1), (3, 9), (0, 1), (17, 1), (8, 2), (12, 1)],
    "very uneven decodes": [(700, 1), (2, 1), (3, 1), (690, 1), (0, 1)],
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attend_naively(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query [H, D] over keys and values [L, K, D], head by head."""
    num_heads, head_dim = query.shape
    group = num_heads // keys.shape[1]
    rows = []
    for head in range(num_heads):
        scores = keys[:, head // group] @ query[head] / math.sqrt(head_dim)
        rows.append(scores.softmax(0) @ values[:, head // group])
    return torch.cat(rows)


class Case:
    """Sequences with random keys and values, partly in the cache already."""

    def __init__(
        self, work: list[tuple[int, int]], num_heads: int, num_kv_heads: int, head_dim: int = 8
    ) -> None:
        """work: (start, num_tokens) of each sequence."""
        self.work = work
        self.head_dim = head_dim
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.tokens = [
            random(start + count, num_heads + 2 * num_kv_heads, head_dim, seed=index)
            for index, (start, count) in enumerate(work)
        ]

    def run(
        self,
        operations: Operations,
        dtype: torch.dtype,
        window: int | None = None,
        rotations: Tensor | None = None,
    ) -> list[Tensor]:
        """Return each sequence's [num_tokens, H * D]. rotations: [T, 1, D / 2] complex64."""
        num_blocks = 16 + sum(-(-len(tokens) // BLOCK) for tokens in self.tokens)
        shape = (1, num_blocks, BLOCK, 2 * self.num_kv_heads, self.head_dim)
        memory = torch.full(shape, 1e4, dtype=dtype)
        cache = KVCache.of(memory)
        layout = InputLayout(BLOCK, window, dtype, CPU, operations.pads_decodes)
        free = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(3)).tolist()
        scheduled, done = [], []
        for (start, count), tokens in zip(self.work, self.tokens, strict=True):
            blocks = [free.pop() for _ in range(-(-len(tokens) // BLOCK))]
            sequence = Sequence(
                request_id="r",
                token_ids=[0] * len(tokens),
                num_prompt_tokens=len(tokens),
                params=SamplingParams(temperature=0.0),
                max_tokens=1,
                seed=0,
                block_ids=blocks,
            )
            scheduled.append(ScheduledSequence(sequence, start, count, True))
            done.append(
                torch.tensor([blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(start)])
            )
        layer = cache.layers[0]
        for slots, tokens in zip(done, self.tokens, strict=True):
            if len(slots):
                write_kv(tokens[: len(slots), self.num_heads :].to(dtype), layer, slots)
        step, _ = build_inputs(ScheduledBatch(tuple(scheduled)), layout, TokenHistory())
        rows = self._rows(step.positions, step.sample_rows)
        heads = torch.empty(len(step.positions), *self.tokens[0].shape[1:])
        for tokens, (start, count), first in zip(self.tokens, self.work, rows, strict=True):
            heads[first : first + count] = tokens[start:]
        heads = heads.to(dtype)
        if rotations is None:
            rotations = torch.ones(len(heads), 1, self.head_dim // 2, dtype=torch.complex64)
        attended = operations.attend(heads, rotations, layer, step.attention).float()
        return [
            attended[first : first + count]
            for first, (_, count) in zip(rows, self.work, strict=True)
        ]

    def _rows(self, positions: Tensor, last: Tensor) -> list[int]:
        rows = [row - count + 1 for row, (_, count) in zip(last.tolist(), self.work, strict=True)]
        for row, (start, count) in zip(rows, self.work, strict=True):
            assert positions[row : row + count].tolist() == list(range(start, start + count))
        return rows

    def expected(self, dtype: torch.dtype, window: int | None = None) -> list[Tensor]:
        results = []
        for tokens, (start, count) in zip(self.tokens, self.work, strict=True):
            tokens = tokens.to(dtype).float()
            queries = tokens[:, : self.num_heads]
            keys = tokens[:, self.num_heads : self.num_heads + self.num_kv_heads]
            values = tokens[:, self.num_heads + self.num_kv_heads :]
            rows = []
            for position in range(start, start + count):
                first = 0 if window is None else max(0, position - window + 1)
                seen = slice(first, position + 1)
                rows.append(attend_naively(queries[position], keys[seen], values[seen]))
            results.append(torch.stack(rows))
        return results
