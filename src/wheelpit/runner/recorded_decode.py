"""The decode step of a single sequence, where the kernels can record it.

Called by ModelRunner. One sequence at a time is what a person at a laptop has; its step is short,
and made of calls from Python for the most part unless it is recorded (`kernels/recording.py`).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, DecodeGroup
from wheelpit.kernels.operations import Operations
from wheelpit.models.registry import Model
from wheelpit.runner.inputs import InputLayout, ModelInputs
from wheelpit.runner.kv_cache import KVCache


class RecordedDecode:
    """Inputs whose memory stays, and what the model computes of them."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        layout: InputLayout,
        operations: Operations,
        num_positions: int,
    ) -> None:
        """Run the model once, which writes to the first slot of the cache.

        num_positions: the longest sequence there will be.
        """
        num_blocks = -(-num_positions // layout.block_size)
        self._token_id, self._position, self._slot = torch.zeros(3, 1, dtype=torch.int64)
        self._block_ids = torch.zeros(num_blocks, dtype=torch.int64)
        group = DecodeGroup(1, self._block_ids, self._position, layout.sliding_window, None)
        attention = AttentionInputs(self._slot, (group,), ())
        compute = partial(model, self._token_id, self._position, cache.layers, attention)
        self._replay = operations.record(compute)

    def suits(self, inputs: ModelInputs) -> bool:
        """Was this recorded, and is it this kind of step?"""
        attention = inputs.attention
        return (
            self._replay is not None
            and len(inputs.token_ids) == 1
            and len(attention.decodes) == 1
            and attention.decodes[0].mask is None
        )

    def run(self, inputs: ModelInputs) -> Tensor:
        """Return the hidden state, [1, E], which the next call writes to. For steps it `suits`."""
        assert self._replay is not None, "nothing was recorded"
        block_ids = inputs.attention.decodes[0].block_ids
        self._token_id.copy_(inputs.token_ids)
        self._position.copy_(inputs.positions)
        self._slot.copy_(inputs.attention.slots)
        self._block_ids[: len(block_ids)].copy_(block_ids)
        return self._replay()
