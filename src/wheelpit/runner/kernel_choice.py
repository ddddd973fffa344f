"""Choose what computes everything but the matrix products."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass

import torch

from wheelpit.config import EngineConfig
from wheelpit.kernels import compiled
from wheelpit.kernels.build import Build, start_build
from wheelpit.kernels.operations import Operations
from wheelpit.kernels.reference import TorchOperations
from wheelpit.runner.draws import CompiledDrawer, Drawer, NumpyDrawer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """What a model computes with."""

    operations: Operations
    draw: Drawer


def open_library(
    config: EngineConfig, device: torch.device, build: Build | None
) -> ctypes.CDLL | None:
    """Return the compiled kernels, if they are wanted and can be had, else say why not.

    build: the compilation, if it was started already.
    """
    if config.model.enforce_eager or device.type != "cpu":
        return None
    build = start_build() if build is None else build
    path = build.wait()
    if path is None:
        log.info("without compiled kernels, so slower: %s", build.reason)
        return None
    try:
        return compiled.load(path)
    except OSError as error:
        log.warning("without compiled kernels, so slower: %s", error)
        return None


def choose_kernels(library: ctypes.CDLL | None, dtype: torch.dtype) -> KernelChoice:
    """Return the library's where they fit, else plain torch's."""
    if library is None or dtype not in compiled.DTYPES:
        return KernelChoice(TorchOperations(), NumpyDrawer())
    operations = compiled.CompiledOperations(library, dtype)
    return KernelChoice(operations, CompiledDrawer(compiled.DrawTokens(library)))
