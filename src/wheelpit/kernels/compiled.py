"""cpu.cpp and draws.cpp from Python: each a single pass, where plain torch makes several calls.

Called through ctypes with addresses: no headers of torch's are needed to compile it, and nothing
of torch's ABI to load it. Matrix products and the attention of prompts stay torch's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, DecodeGroup, LayerCache
from wheelpit.kernels.reference import attend_chunk

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64


def load(library: Path) -> ctypes.CDLL:
    """Load what `build.py` has made. Raises OSError."""
    return ctypes.CDLL(str(library))


class CompiledOperations:
    """The library's functions for one dtype."""

    name = "compiled kernels"
    pads_decodes = False

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        """dtype: one of DTYPES, the model's."""
        suffix = DTYPES[dtype]
        self._set_num_threads = library.set_num_threads

        def function(name: str, *types: type) -> Callable[..., None]:
            return _function(library, f"{name}_{suffix}", *types)

        self._add_norm = function("add_norm", *[_ADDRESS] * 5, *[_COUNT] * 2)
        self._norm_heads = function("norm_heads", *[_ADDRESS] * 3, *[_COUNT] * 4)
        self._silu_and_mul = function("silu_and_mul", *[_ADDRESS] * 2, *[_COUNT] * 2)
        self._rotate_and_write = function("rotate_and_write", *[_ADDRESS] * 4, *[_COUNT] * 4)
        self._attend_decodes = function("attend_decodes", *[_ADDRESS] * 5, *[_COUNT] * 7)

    def use_threads(self, number: int) -> None:
        torch.set_num_threads(number)
        self._set_num_threads(number)

    def add_norm(
        self, hidden: Tensor, delta: Tensor | None, gain: Tensor, floor: Tensor, dtype: torch.dtype
    ) -> Tensor:
        out = torch.empty(hidden.shape, dtype=dtype)
        self._add_norm(
            hidden.data_ptr(),
            None if delta is None else delta.data_ptr(),
            gain.data_ptr(),
            floor.data_ptr(),
            out.data_ptr(),
            *hidden.shape,
        )
        return out

    def norm_heads_(self, heads: Tensor, gain: Tensor, floor: Tensor) -> None:
        rows, num_heads, head_dim = heads.shape
        self._norm_heads(
            heads.data_ptr(),
            gain.data_ptr(),
            floor.data_ptr(),
            rows,
            num_heads,
            heads.stride(0),
            head_dim,
        )

    def silu_and_mul(self, gate_up: Tensor) -> Tensor:
        rows, width = gate_up.shape
        out = gate_up.new_empty(rows, width // 2)
        self._silu_and_mul(gate_up.data_ptr(), out.data_ptr(), rows, width // 2)
        return out

    def attend(
        self, heads: Tensor, rotations: Tensor, cache: LayerCache, inputs: AttentionInputs
    ) -> Tensor:
        rows, width, head_dim = heads.shape
        num_heads = width - 2 * cache.num_kv_heads
        self._rotate_and_write(
            heads.data_ptr(),
            rotations.data_ptr(),
            inputs.slots.data_ptr(),
            cache.by_slot.data_ptr(),
            rows,
            num_heads,
            cache.num_kv_heads,
            head_dim,
        )
        attended = heads.new_empty(rows, num_heads * head_dim)
        row = 0
        for group in inputs.decodes:
            self._attend_group(heads[row:], cache, group, attended[row:])
            row += group.num_sequences
        for chunk in inputs.chunks:
            end = row + chunk.num_tokens
            attended[row:end] = attend_chunk(heads[row:end], cache, chunk)
            row = end
        return attended

    def _attend_group(
        self, heads: Tensor, cache: LayerCache, group: DecodeGroup, out: Tensor
    ) -> None:
        _, width, head_dim = heads.shape
        self._attend_decodes(
            heads.data_ptr(),
            cache.by_slot.data_ptr(),
            group.block_ids.data_ptr(),
            group.positions.data_ptr(),
            out.data_ptr(),
            group.num_sequences,
            len(group.block_ids) // group.num_sequences,
            width - 2 * cache.num_kv_heads,
            cache.num_kv_heads,
            head_dim,
            cache.block_size,
            group.window or 0,
        )


class DrawTokens:
    """draws.cpp: choose a token per row of logits."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._draw = _function(library, "draw_tokens", *[_ADDRESS] * 8, *[_COUNT] * 2)

    def __call__(
        self,
        logits: Tensor,
        temperatures: NDArray[np.float32],
        min_ps: NDArray[np.float32],
        top_ks: NDArray[np.int64],
        top_ps: NDArray[np.float32],
        seeds: NDArray[np.uint64],
        positions: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """logits: [R, V] float32, scaled in place. Arrays: [R]. See runner/sampling_inputs.py."""
        rows, vocab_size = logits.shape
        out = np.empty(rows, dtype=np.int64)
        parameters = (temperatures, min_ps, top_ks, top_ps, seeds, positions, out)
        self._draw(
            logits.data_ptr(), *(array.ctypes.data for array in parameters), rows, vocab_size
        )
        return out


def _function(library: ctypes.CDLL, name: str, *types: type) -> Callable[..., None]:
    found = library[name]
    found.argtypes, found.restype = types, None
    return found
