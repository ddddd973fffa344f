"""cpu.cpp and draws.cpp from Python: each a single pass, where plain torch makes several calls.

Called through ctypes with addresses: no headers of torch's are needed to compile it, and nothing
of torch's ABI to load it. Products of matrices and the attention of prompts stay torch's.
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
from wheelpit.kernels.recording import Arguments, NotRecordableError, Recording
from wheelpit.kernels.reference import attend_chunk

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

_FUNCTIONS = (
    *("embed", "multiply", "add_norm", "norm_heads"),
    *("silu_and_mul", "rotate_and_write", "attend_decodes"),
)
"""One for each dtype; take_rows is for all."""


def load(library: Path) -> ctypes.CDLL:
    """Load what `build.py` has made. Raises OSError."""
    return ctypes.CDLL(str(library))


class CompiledOperations:
    """The library's functions for one dtype."""

    # Without a __dict__: layers have it, and what looks for weights below them ends here.
    __slots__ = ("_functions", "_library", "_recording")

    name = "compiled kernels"
    pads_decodes = False
    most_plain_rows = 8
    can_record = True

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        """dtype: one of DTYPES, the model's."""
        self._library = library
        self._functions = {name: library[f"{name}_{DTYPES[dtype]}"] for name in _FUNCTIONS}
        self._functions["take_rows"] = library.take_rows
        for function in self._functions.values():
            function.restype = None
        self._recording: Recording | None = None

    def use_threads(self, number: int) -> None:
        torch.set_num_threads(number)
        self._library.set_num_threads(number)

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        recording = self._recording = Recording(self._library)
        try:
            recording.record(compute)
        except NotRecordableError:
            return None
        finally:
            self._recording = None
        return recording

    def embed(self, table: Tensor, token_ids: Tensor) -> Tensor:
        rows, size = len(token_ids), table.shape[1]
        out = torch.empty(rows, size)
        self._call("embed", table.data_ptr(), token_ids.data_ptr(), out.data_ptr(), rows, size)
        return out

    def take_rotations(self, table: Tensor, positions: Tensor) -> Tensor:
        rows, half = len(positions), table.shape[2]
        out = table.new_empty(rows, 1, half)
        self._call(
            "take_rows", table.data_ptr(), positions.data_ptr(), out.data_ptr(), rows, 2 * half
        )
        return out

    def multiply_rows(self, weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        num_outputs, size = weight.shape
        rows = len(x)
        out = x.new_empty(rows, num_outputs)
        self._call(
            "multiply",
            weight.data_ptr(),
            x.data_ptr(),
            0 if bias is None else bias.data_ptr(),
            out.data_ptr(),
            rows,
            num_outputs,
            size,
        )
        return out

    def add_norm(
        self, hidden: Tensor, delta: Tensor | None, gain: Tensor, floor: Tensor, dtype: torch.dtype
    ) -> Tensor:
        out = torch.empty(hidden.shape, dtype=dtype)
        self._call(
            "add_norm",
            hidden.data_ptr(),
            0 if delta is None else delta.data_ptr(),
            gain.data_ptr(),
            floor.data_ptr(),
            out.data_ptr(),
            *hidden.shape,
        )
        return out

    def norm_heads_(self, heads: Tensor, gain: Tensor, floor: Tensor) -> None:
        rows, num_heads, head_dim = heads.shape
        self._call(
            "norm_heads",
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
        self._call("silu_and_mul", gate_up.data_ptr(), out.data_ptr(), rows, width // 2)
        return out

    def attend(
        self, heads: Tensor, rotations: Tensor, cache: LayerCache, inputs: AttentionInputs
    ) -> Tensor:
        rows, width, head_dim = heads.shape
        num_heads = width - 2 * cache.num_kv_heads
        self._call(
            "rotate_and_write",
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
        self._call(
            "attend_decodes",
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

    def _call(self, name: str, *arguments: int) -> None:
        function, packed = self._functions[name], Arguments(*arguments)
        function(packed)
        if self._recording is not None:
            self._recording.add(function, packed)


class DrawTokens:
    """draws.cpp: choose a token per row of logits."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._draw = library.draw_tokens
        self._draw.argtypes = [ctypes.c_void_p] * 8 + [ctypes.c_int64] * 2
        self._draw.restype = None

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
