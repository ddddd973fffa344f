"""Decode steps of a few sequences, where the kernels can record them.

Called by ModelRunner. One sequence or a few at a time is what people at a laptop have; such a step
is short, and made of calls from Python for the most part unless it is recorded
(`kernels/recording.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, DecodeGroup
from wheelpit.kernels.operations import Operations
from wheelpit.models.registry import Model
from wheelpit.runner.inputs import InputLayout, ModelInputs
from wheelpit.runner.kv_cache import KVCache


class RecordedDecodes:
    """One recording for each number of sequences, made by the first step that has so many."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        layout: InputLayout,
        operations: Operations,
        *,
        num_positions: int,
        most_rows: int,
    ) -> None:
        """num_positions: the longest sequence there will be. most_rows: of a recorded step."""
        self._model = model
        self._cache = cache
        self._layout = layout
        self._operations = operations
        self._most_blocks = -(-num_positions // layout.block_size)
        self._most_rows = most_rows if operations.can_record else 0
        self._by_rows: dict[int, _RecordedDecode] = {}

    def run(self, inputs: ModelInputs) -> Tensor | None:
        """Return the hidden states, [T, E], which the next such step writes to.

        None if this step has to be computed in another way.
        """
        rows = len(inputs.token_ids)
        decodes = inputs.attention.decodes
        if rows > self._most_rows or len(decodes) != 1 or decodes[0].num_sequences != rows:
            return None
        recorded = self._by_rows.get(rows)
        if recorded is not None:
            return recorded.run(inputs)
        recorded = _RecordedDecode(rows, self._most_blocks, self._layout.sliding_window)
        if recorded.record(self._operations, self._model, self._cache, inputs):
            self._by_rows[rows] = recorded
            return recorded.run(inputs)
        # Nor can it be with another number: some layer is too large to be multiplied so.
        self._most_rows = 0
        return None


class _RecordedDecode:
    """Inputs whose memory stays, and what the model computes of them."""

    def __init__(self, rows: int, most_blocks: int, window: int | None) -> None:
        self._token_ids, self._positions, self._slots = torch.zeros(3, rows, dtype=torch.int64)
        self._block_ids = torch.zeros(rows, most_blocks, dtype=torch.int64)
        self._replay: Callable[[], Tensor] | None = None
        group = DecodeGroup(rows, self._block_ids.view(-1), self._positions, window, None)
        self._attention = AttentionInputs(self._slots, (group,), ())

    def record(
        self, operations: Operations, model: Model, cache: KVCache, inputs: ModelInputs
    ) -> bool:
        """Return whether it can be recorded. Computes this step: the cache is in use."""
        self._fill(inputs)
        self._replay = operations.record(
            partial(model, self._token_ids, self._positions, cache.layers, self._attention)
        )
        return self._replay is not None

    def run(self, inputs: ModelInputs) -> Tensor:
        assert self._replay is not None, "nothing was recorded"
        self._fill(inputs)
        return self._replay()

    def _fill(self, inputs: ModelInputs) -> None:
        rows = len(self._token_ids)
        self._token_ids.copy_(inputs.token_ids)
        self._positions.copy_(inputs.positions)
        self._slots.copy_(inputs.attention.slots)
        block_ids = inputs.attention.decodes[0].block_ids.view(rows, -1)
        self._block_ids[:, : block_ids.shape[1]].copy_(block_ids)
