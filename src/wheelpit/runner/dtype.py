"""Decide the device and the dtype that "auto" stands for, and how to compute with them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from wheelpit.config import ComputePlan, EngineConfig
from wheelpit.errors import ConfigError
from wheelpit.kernels import onednn
from wheelpit.kernels.operations import Operations
from wheelpit.models.config import ModelConfig
from wheelpit.runner.compute_plan import MEASURED_ROWS, make_plan
from wheelpit.runner.kv_cache import available_bytes

log = logging.getLogger(__name__)

NO_PLAN = ComputePlan((), plain_rows=0)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

FLOAT32_MEMORY_SHARE = 0.5
"""Float32 weights that take more than this share of the available memory are not considered."""


def resolve_device(config: EngineConfig) -> torch.device:
    """Return the device asked for; "auto" is the GPU if there is one. Raises ConfigError."""
    name = config.model.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but this torch finds no GPU: use device='cpu'")
    return torch.device(name)


def resolve_dtype(
    config: EngineConfig,
    model: ModelConfig,
    device: torch.device,
    operations: Callable[[torch.dtype], Operations],
) -> tuple[torch.dtype, ComputePlan]:
    """Return the dtype asked for, and how to compute in it with these operations.

    "auto" is what computes this model faster here, and logged.
    """

    def plan(dtype: torch.dtype) -> ComputePlan:
        if not _can_plan(dtype, device):
            return NO_PLAN
        return make_plan(model, dtype, operations(dtype))[0]

    if config.model.dtype != "auto":
        dtype = DTYPES[config.model.dtype]
        return dtype, config.compute_plan or plan(dtype)
    if device.type == "cuda":
        log.info("dtype auto: bfloat16, as always on a GPU")
        return torch.bfloat16, NO_PLAN
    weight_bytes = 4 * _num_weights(model)
    share = FLOAT32_MEMORY_SHARE
    if weight_bytes > share * available_bytes():
        log.info(
            "dtype auto: bfloat16; in float32 the weights would take %.1f GB, more than %d %% of "
            "the available memory",
            weight_bytes / 1e9,
            share * 100,
        )
        return torch.bfloat16, plan(torch.bfloat16)
    if not _can_plan(torch.bfloat16, device):
        log.info("dtype auto: float32; this CPU has no fast kernels for bfloat16")
        return torch.float32, plan(torch.float32)
    both = (torch.float32, torch.bfloat16)
    plans = {dtype: make_plan(model, dtype, operations(dtype)) for dtype in both}
    times = {dtype: seconds for dtype, (_, seconds) in plans.items()}
    # Each number of rows counts alike: the product of the ratios decides.
    ratio = 1.0
    for slow, fast in zip(times[torch.float32], times[torch.bfloat16], strict=True):
        ratio *= slow / fast
    chosen = torch.bfloat16 if ratio > 1.0 else torch.float32
    log.info(
        "dtype auto: %s; the products of a layer take %s us for %s rows in float32, %s in bfloat16",
        str(chosen).removeprefix("torch."),
        _join(round(1e6 * seconds) for seconds in times[torch.float32]),
        _join(MEASURED_ROWS),
        _join(round(1e6 * seconds) for seconds in times[torch.bfloat16]),
    )
    return chosen, plans[chosen][0]


def _can_plan(dtype: torch.dtype, device: torch.device) -> bool:
    return onednn.can_pack(torch.empty(0, dtype=dtype, device=device))


def _num_weights(model: ModelConfig) -> int:
    attention = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    layer = model.hidden_size * (attention + 3 * model.intermediate_size)
    tables = 1 if model.tie_word_embeddings else 2
    return model.num_layers * layer + tables * model.vocab_size * model.hidden_size


def _join(values: object) -> str:
    return "/".join(map(str, values))  # type: ignore[call-overload]
