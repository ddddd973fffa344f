"""Turn a scheduler's decision into the tensors of one step.

Called by ModelRunner. Arrays are put together in numpy, because each torch call costs more than
all of this arithmetic, and cross to the device in one piece each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, DecodeGroup, PrefillChunk
from wheelpit.runner.sampling_inputs import SamplingInputs, build_sampling_inputs
from wheelpit.runner.token_history import TokenHistory
from wheelpit.scheduling.batch import ScheduledBatch, ScheduledSequence

Ids = NDArray[np.int64]

GROUP_COST_BLOCKS = 16
"""What a further decode group costs, in blocks of padding that would cost the same.

A group's calls take some 30 us a layer, gathering a block and attending to it 2 us
(`benchmarks/decode_step.py --ops --threads 1`, Zen 4).
"""


@dataclass(frozen=True, slots=True)
class InputLayout:
    """What of the model and its cache decides the shape of a step's tensors."""

    block_size: int
    sliding_window: int | None
    dtype: torch.dtype
    device: torch.device
    pads_decodes: bool
    """See `Operations`."""


@dataclass(frozen=True, slots=True)
class PromptScores:
    """A scheduled sequence that wants prompt_logprobs.

    Row first_row + i predicts next_token_ids[i]; `index` is the sequence's place in the batch.
    """

    index: int
    first_row: int
    next_token_ids: tuple[int, ...]
    num_top: int
    """-1 is the whole vocabulary."""


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """One step's tensors. Rows are the decodes, then the chunks, not the batch's order.

    token_ids, positions: [T] int64.
    num_decode_keys: all that the decodes attend to.
    sample_rows: [B] int64, the rows whose logits choose a token, in the batch's order.
    fresh_block_ids: [n] int64, blocks that this step starts but does not fill. They must be
    cleared first: what an earlier owner left there is masked, but 0 * NaN is NaN.
    """

    token_ids: Tensor
    positions: Tensor
    attention: AttentionInputs
    num_decode_keys: int
    sample_rows: Tensor
    fresh_block_ids: Tensor | None
    prompt_scores: tuple[PromptScores, ...]


def build_inputs(
    batch: ScheduledBatch, layout: InputLayout, history: TokenHistory
) -> tuple[ModelInputs, SamplingInputs]:
    """Lay out the batch's tokens, their slots and what each may attend to."""
    order = sorted(range(len(batch.sequences)), key=lambda i: _order(batch.sequences[i]))
    ordered = [batch.sequences[index] for index in order]
    num_decodes = sum(scheduled.num_tokens == 1 for scheduled in ordered)
    rows = _Rows(layout)
    for group in _decode_groups(ordered[:num_decodes], layout):
        rows.add_decodes(group)
    for scheduled in ordered[num_decodes:]:
        rows.add_chunk(scheduled)
    first_rows = [0] * len(ordered)
    for index, first_row in zip(order, rows.first_rows, strict=True):
        first_rows[index] = first_row
    sample_rows = [
        first_row + scheduled.num_tokens - 1
        for first_row, scheduled in zip(first_rows, batch.sequences, strict=True)
        if scheduled.samples
    ]
    fresh = _fresh_block_ids(batch, layout.block_size)
    inputs = ModelInputs(
        token_ids=_to_device(np.array(rows.token_ids), layout),
        positions=_to_device(np.concatenate(rows.positions), layout),
        attention=AttentionInputs(
            slots=_to_device(np.concatenate(rows.slots), layout),
            decodes=tuple(rows.decodes),
            chunks=tuple(rows.chunks),
        ),
        num_decode_keys=sum(scheduled.start + 1 for scheduled in ordered[:num_decodes]),
        sample_rows=_to_device(np.array(sample_rows, dtype=np.int64), layout),
        fresh_block_ids=_to_device(np.array(fresh), layout) if fresh else None,
        prompt_scores=_prompt_scores(batch, first_rows),
    )
    return inputs, build_sampling_inputs(batch, history)


class _Rows:
    """The rows of a step while they are put together."""

    def __init__(self, layout: InputLayout) -> None:
        self.token_ids: list[int] = []
        self.positions: list[Ids] = []
        self.slots: list[Ids] = []
        self.decodes: list[DecodeGroup] = []
        self.chunks: list[PrefillChunk] = []
        self.first_rows: list[int] = []
        self._layout = layout

    def add_decodes(self, group: Sequence[ScheduledSequence]) -> None:
        """Add one row per sequence. group: the longest first."""
        first_row = len(self.token_ids)
        self.first_rows += range(first_row, first_row + len(group))
        self.token_ids += [scheduled.sequence.token_ids[scheduled.start] for scheduled in group]
        starts = np.array([scheduled.start for scheduled in group])
        table = _block_table(group, self._layout.block_size)
        last_blocks = table[np.arange(len(group)), starts // self._layout.block_size]
        self._add_positions(starts, last_blocks)
        self.decodes.append(_decode_group(table, starts, self._layout))

    def add_chunk(self, scheduled: ScheduledSequence) -> None:
        """Add the sequence's consecutive tokens."""
        self.first_rows.append(len(self.token_ids))
        end = scheduled.start + scheduled.num_tokens
        self.token_ids += scheduled.sequence.token_ids[scheduled.start : end]
        block_size = self._layout.block_size
        blocks = np.array(scheduled.sequence.block_ids[: -(-end // block_size)])
        positions = np.arange(scheduled.start, end)
        self._add_positions(positions, blocks[positions // block_size])
        self.chunks.append(_prefill_chunk(scheduled, blocks, self._layout))

    def _add_positions(self, positions: Ids, block_ids: Ids) -> None:
        block_size = self._layout.block_size
        self.positions.append(positions)
        self.slots.append(block_ids * block_size + positions % block_size)


def _order(scheduled: ScheduledSequence) -> tuple[bool, int]:
    """Sort key: decodes first, the longest of them first."""
    is_chunk = scheduled.num_tokens > 1
    return is_chunk, 0 if is_chunk else -scheduled.start


def _decode_groups(
    decoding: Sequence[ScheduledSequence], layout: InputLayout
) -> list[Sequence[ScheduledSequence]]:
    """Cut the decodes, longest first, where padding the rest costs more than another group."""
    if not layout.pads_decodes:
        return [decoding] if decoding else []
    groups = []
    first = 0
    block_size = layout.block_size
    for index, scheduled in enumerate(decoding):
        saved = decoding[first].start // block_size - scheduled.start // block_size
        if saved * (len(decoding) - index) > GROUP_COST_BLOCKS:
            groups.append(decoding[first:index])
            first = index
    if first < len(decoding):
        groups.append(decoding[first:])
    return groups


def _block_table(group: Sequence[ScheduledSequence], block_size: int) -> Ids:
    """Return each sequence's block ids, [B, M], the longest first.

    Padding repeats a sequence's own last block, so that no row ever reads another's memory.
    """
    num_columns = group[0].start // block_size + 1
    flat: list[int] = []
    for scheduled in group:
        num_blocks = scheduled.start // block_size + 1
        flat += scheduled.sequence.block_ids[:num_blocks]
        if num_blocks < num_columns:
            flat += flat[-1:] * (num_columns - num_blocks)
    return np.array(flat, dtype=np.int64).reshape(len(group), num_columns)


def _decode_group(table: Ids, starts: Ids, layout: InputLayout) -> DecodeGroup:
    return DecodeGroup(
        num_sequences=len(table),
        block_ids=_to_device(table.ravel(), layout),
        positions=_to_device(starts, layout),
        window=layout.sliding_window,
        mask=_mask(table, starts, layout) if layout.pads_decodes else None,
    )


def _mask(table: Ids, starts: Ids, layout: InputLayout) -> Tensor:
    keys = np.arange(table.shape[1] * layout.block_size)
    is_hidden = keys > starts[:, None]
    if layout.sliding_window is not None:
        is_hidden |= keys <= starts[:, None] - layout.sliding_window
    mask = np.where(is_hidden[:, None, None], np.float32(-np.inf), np.float32(0.0))
    return _to_device(mask, layout).to(layout.dtype)


def _prefill_chunk(scheduled: ScheduledSequence, blocks: Ids, layout: InputLayout) -> PrefillChunk:
    start, end = scheduled.start, scheduled.start + scheduled.num_tokens
    window = layout.sliding_window
    mask = None
    if start > 0 or (window is not None and end > window):
        ones = torch.ones(end - start, end, dtype=torch.bool, device=layout.device)
        mask = ones.tril_(start)
        if window is not None:
            mask.triu_(start - window + 1)
    return PrefillChunk(
        num_tokens=scheduled.num_tokens,
        num_keys=end,
        block_ids=_to_device(blocks, layout) if start > 0 else None,
        mask=mask,
    )


def _fresh_block_ids(batch: ScheduledBatch, block_size: int) -> list[int]:
    fresh = []
    for scheduled in batch.sequences:
        end = scheduled.start + scheduled.num_tokens
        last, is_partial = end // block_size, end % block_size > 0
        if is_partial and last * block_size >= scheduled.start:
            fresh.append(scheduled.sequence.block_ids[last])
    return fresh


def _prompt_scores(batch: ScheduledBatch, first_rows: Sequence[int]) -> tuple[PromptScores, ...]:
    wanted = []
    for index, scheduled in enumerate(batch.sequences):
        sequence = scheduled.sequence
        num_top = sequence.params.prompt_logprobs
        if num_top is None:
            continue
        end = min(scheduled.start + scheduled.num_tokens + 1, sequence.num_prompt_tokens)
        next_token_ids = tuple(sequence.token_ids[scheduled.start + 1 : end])
        if next_token_ids:
            wanted.append(PromptScores(index, first_rows[index], next_token_ids, num_top))
    return tuple(wanted)


def _to_device(values: NDArray[np.generic], layout: InputLayout) -> Tensor:
    return torch.from_numpy(values).to(layout.device, non_blocking=True)
