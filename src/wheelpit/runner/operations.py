"""Choose what computes everything but the matrix products."""

from __future__ import annotations

import logging

import torch

from wheelpit.config import EngineConfig
from wheelpit.kernels import compiled
from wheelpit.kernels.build import Build, start_build
from wheelpit.kernels.operations import Operations
from wheelpit.kernels.reference import TorchOperations
from wheelpit.models.config import ModelConfig

log = logging.getLogger(__name__)


def choose_operations(
    config: EngineConfig,
    model: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    build: Build | None,
) -> Operations:
    """Return the compiled kernels where they fit and can be had, else plain torch's, and say why.

    build: the compilation, if it was started already.
    """
    if config.model.enforce_eager or not _fits(model, dtype, device):
        return TorchOperations()
    build = start_build() if build is None else build
    library = build.wait()
    if library is None:
        log.info("without compiled kernels, so slower: %s", build.reason)
        return TorchOperations()
    try:
        return compiled.CompiledOperations(library, dtype)
    except OSError as error:
        log.warning("without compiled kernels, so slower: %s", error)
        return TorchOperations()


def _fits(model: ModelConfig, dtype: torch.dtype, device: torch.device) -> bool:
    is_known = device.type == "cpu" and dtype in compiled.DTYPES
    return is_known and model.head_dim <= compiled.MAX_HEAD_DIM
