"""Calls of compiled functions that are kept and made again by one: a CUDA graph for the CPU.

A decode step of one sequence is a hundred short calls with the same shapes every time. From Python
each costs as much as the arithmetic of a small model. So `compiled.py` makes them once with inputs
whose memory stays, and keeps every call with its addresses. To repeat the step is to put other
values where the inputs are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MOST_ARGUMENTS = 12
"""As in cpu.cpp."""

Arguments = ctypes.c_int64 * MOST_ARGUMENTS

Function = Callable[[Any], None]
"""One of the library's, called with `Arguments`."""

ALLOWED = frozenset(
    (
        *(torch.empty, Tensor.new_empty, Tensor.view, Tensor.__getitem__),
        *(Tensor.__len__, Tensor.data_ptr, Tensor.stride),
    )
)
"""What torch may be asked for meanwhile, besides attributes: memory, views of it, addresses."""


class NotRecordableError(Exception):
    """Something was computed that would not be computed again."""


class _Call(ctypes.Structure):
    _fields_ = (("function", ctypes.c_void_p), ("arguments", Arguments))


class Recording:
    """The calls of a computation, and the memory that they read and write."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._replay = library.replay
        self._replay.argtypes, self._replay.restype = (ctypes.c_void_p, ctypes.c_int64), None
        self._unsealed: list[_Call] = []
        self._calls: Any = None
        self._kept: Sequence[object] = ()
        self._result: Tensor | None = None

    def record(self, compute: Callable[[], Tensor]) -> None:
        """Call `compute`; `add` must hear of all that it calls. NotRecordableError."""
        memory = _OnlyMemory()
        with memory:
            self._result = compute()
        # Its inputs are kept by it, or the addresses would be those of something else one day.
        self._kept = (*memory.tensors, compute)
        self._calls = (_Call * len(self._unsealed))(*self._unsealed)

    def add(self, function: Function, arguments: Any) -> None:
        address = ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]  # it is one
        self._unsealed.append(_Call(address, arguments))

    def __call__(self) -> Tensor:
        """Compute again. Returns the same tensor each time, with other values."""
        self._replay(self._calls, len(self._calls))
        assert self._result is not None, "nothing was recorded"
        return self._result


class _OnlyMemory(TorchFunctionMode):
    """Keeps what torch allocates, and lets it do nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        is_copy = func is Tensor.__getitem__ and not _is_view(args[1])
        if is_copy or (func not in ALLOWED and func.__name__ != "__get__"):
            raise NotRecordableError(f"torch computes {func}")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.tensors.append(result)
        return result


def _is_view(index: object) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(part, slice | int) for part in parts)
