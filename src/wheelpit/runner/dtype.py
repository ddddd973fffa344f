"""Decide the device and the dtype that "auto" stands for."""

from __future__ import annotations

import logging
import time

import torch

from wheelpit.config import EngineConfig
from wheelpit.errors import ConfigError
from wheelpit.kernels import onednn
from wheelpit.models.config import ModelConfig
from wheelpit.runner.kv_cache import available_bytes

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MEASURED_ROWS = (1, 16)
MOST_MEASURED_WEIGHTS = 2**21
"""A larger layer is measured by a slice of it: start-up may not wait for the answer."""
NUM_ROUNDS = 5

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


def resolve_dtype(config: EngineConfig, model: ModelConfig, device: torch.device) -> torch.dtype:
    """Return the dtype asked for; "auto" is what computes this model faster here, and logged."""
    if config.model.dtype != "auto":
        return DTYPES[config.model.dtype]
    if device.type == "cuda":
        log.info("dtype auto: bfloat16, as always on a GPU")
        return torch.bfloat16
    weight_bytes = 4 * _num_weights(model)
    share = FLOAT32_MEMORY_SHARE
    if weight_bytes > share * available_bytes():
        log.info(
            "dtype auto: bfloat16; in float32 the weights would take %.1f GB, more than %d %% of "
            "the available memory",
            weight_bytes / 1e9,
            share * 100,
        )
        return torch.bfloat16
    sample = torch.empty(0, dtype=torch.bfloat16, device=device)
    if not onednn.can_pack(sample):
        log.info("dtype auto: float32; this CPU has no fast kernels for bfloat16")
        return torch.float32
    times = {dtype: measure_linears(model, dtype) for dtype in (torch.float32, torch.bfloat16)}
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
    return chosen


def measure_linears(model: ModelConfig, dtype: torch.dtype) -> list[float]:
    """Return the seconds that one layer's linear products take on the CPU, per MEASURED_ROWS."""
    queries = model.num_heads * model.head_dim
    keys = model.num_kv_heads * model.head_dim
    shapes = [
        (queries + 2 * keys, model.hidden_size),
        (model.hidden_size, queries),
        (2 * model.intermediate_size, model.hidden_size),
        (model.hidden_size, model.intermediate_size),
    ]
    seconds = [0.0] * len(MEASURED_ROWS)
    for out_features, in_features in shapes:
        measured = max(1, min(out_features, MOST_MEASURED_WEIGHTS // in_features))
        packed = onednn.PackedLinear(torch.ones(measured, in_features, dtype=dtype))
        for index, rows in enumerate(MEASURED_ROWS):
            x = torch.ones(rows, in_features, dtype=dtype)
            seconds[index] += _fastest(x, packed) * out_features / measured
    return seconds


def _fastest(x: torch.Tensor, packed: onednn.PackedLinear) -> float:
    times = []
    for _ in range(NUM_ROUNDS + 1):
        started = time.perf_counter()
        packed(x, None)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _num_weights(model: ModelConfig) -> int:
    attention = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    layer = model.hidden_size * (attention + 3 * model.intermediate_size)
    tables = 1 if model.tie_word_embeddings else 2
    return model.num_layers * layer + tables * model.vocab_size * model.hidden_size


def _join(values: object) -> str:
    return "/".join(map(str, values))  # type: ignore[call-overload]
