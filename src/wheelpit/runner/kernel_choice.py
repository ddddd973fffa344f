"""Choose what computes everything but the matrix products."""

from __future__ import annotations

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


def choose_kernels(
    config: EngineConfig, dtype: torch.dtype, device: torch.device, build: Build | None
) -> KernelChoice:
    """Return the compiled kernels where they fit and can be had, else plain torch's, and say why.

    build: the compilation, if it was started already.
    """
    plain = KernelChoice(TorchOperations(), NumpyDrawer())
    fits = device.type == "cpu" and dtype in compiled.DTYPES
    if config.model.enforce_eager or not fits:
        return plain
    build = start_build() if build is None else build
    path = build.wait()
    if path is None:
        log.info("without compiled kernels, so slower: %s", build.reason)
        return plain
    try:
        library = compiled.load(path)
    except OSError as error:
        log.warning("without compiled kernels, so slower: %s", error)
        return plain
    return KernelChoice(
        compiled.CompiledOperations(library, dtype), CompiledDrawer(compiled.DrawTokens(library))
    )
