"""The memory of the paged KV cache: how many blocks fit, and the blocks.

Built once by ModelRunner. Which block belongs to whom is the scheduler's business; this file only
knows bytes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wheelpit.config import CacheConfig, EngineConfig
from wheelpit.errors import ConfigError
from wheelpit.kernels.attention_inputs import LayerCache
from wheelpit.models.config import ModelConfig

MOST_AUTO_CPU_BYTES = 2**30
"""On a CPU the cache shares the memory with everything else: take no more unless told to."""

HEADROOM_BYTES = 256 * 2**20
"""On a GPU, left free for the activations of a step."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """All blocks of all layers in one tensor, and each layer's views of it."""

    memory: Tensor
    """[layers, N, S, 2 * K, D], the keys of a token before its values."""
    layers: tuple[LayerCache, ...]

    @classmethod
    def of(cls, memory: Tensor) -> KVCache:
        """Cut memory, [layers, N, S, 2 * K, D], into its layers."""
        layers = tuple(LayerCache(layer.flatten(0, 1), layer.flatten(1)) for layer in memory)
        return cls(memory, layers)

    @property
    def num_blocks(self) -> int:
        return self.memory.shape[1]

    def clear(self, block_ids: Tensor) -> None:
        """Zero these blocks in every layer. block_ids: [n] int64."""
        self.memory.index_fill_(1, block_ids, 0.0)


def allocate_cache(
    model: ModelConfig, block_size: int, num_blocks: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """Allocate zeroed blocks. On Linux their memory is taken only when first written."""
    shape = (model.num_layers, num_blocks, block_size, 2 * model.num_kv_heads, model.head_dim)
    if device.type != "cpu":
        return KVCache.of(torch.zeros(shape, dtype=dtype, device=device))
    # torch.zeros would write to all of it; numpy's come from the system, which zeroes on demand.
    memory = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return KVCache.of(torch.from_numpy(memory).view(dtype).view(shape))


def block_bytes(model: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
    """Return the size of one block over all layers, keys and values."""
    per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim
    return per_token * block_size * dtype.itemsize


def choose_num_blocks(
    config: EngineConfig, model: ModelConfig, dtype: torch.dtype, device: torch.device
) -> int:
    """Decide the cache's size from the first of these that is set.

    cache.num_blocks; cache.kv_cache_memory_bytes; on a GPU, what gpu_memory_utilization leaves
    beside the weights (call this after loading); on a CPU, the least of 1 GiB, enough for
    max_num_seqs sequences of max_model_len, and gpu_memory_utilization of the available memory;
    more than 1 GiB only where one sequence needs it.

    Raises ConfigError if one sequence of max_model_len does not fit.
    """
    cache = config.cache
    size = block_bytes(model, cache.block_size, dtype)
    needed = -(-config.model.max_model_len // cache.block_size)
    if cache.num_blocks is not None:
        _require_one_sequence(config, cache.num_blocks, needed, f"num_blocks={cache.num_blocks}")
        return cache.num_blocks
    if cache.kv_cache_memory_bytes is not None:
        num_blocks = cache.kv_cache_memory_bytes // size
        limit = f"kv_cache_memory_bytes={cache.kv_cache_memory_bytes}"
        _require_one_sequence(config, num_blocks, needed, limit)
        return num_blocks
    useful = needed * config.scheduler.max_num_seqs
    if device.type == "cuda":
        num_blocks = min(_free_gpu_bytes(cache, device) // size, useful)
        limit = f"gpu_memory_utilization={cache.gpu_memory_utilization} of the GPU's memory"
    else:
        available = int(available_bytes() * cache.gpu_memory_utilization)
        wanted = max(MOST_AUTO_CPU_BYTES // size, needed)
        num_blocks = min(available // size, wanted, useful)
        limit = f"gpu_memory_utilization={cache.gpu_memory_utilization} of the available memory"
    _require_one_sequence(config, num_blocks, needed, limit)
    return num_blocks


def _require_one_sequence(config: EngineConfig, num_blocks: int, needed: int, limit: str) -> None:
    if num_blocks < needed:
        length = config.model.max_model_len
        raise ConfigError(
            f"the KV cache holds {num_blocks * config.cache.block_size} tokens ({limit}), one "
            f"sequence may need max_model_len={length}: raise the former or lower max_model_len"
        )


def _free_gpu_bytes(cache: CacheConfig, device: torch.device) -> int:
    """Return what the engine may still take of the GPU's memory."""
    free, total = torch.cuda.mem_get_info(device)
    unused = int(total * (1.0 - cache.gpu_memory_utilization))
    return max(0, free - unused - HEADROOM_BYTES)


def available_bytes() -> int:
    """Return the RAM that this machine, or its container, can still give."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return min(int(line.split()[1]) * 1024, _container_bytes())
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 * 2**30


def _container_bytes() -> int:
    """Return what is left below the container's memory limit (cgroup v2), if there is one."""
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            most = file.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            used = int(file.read())
    except (OSError, ValueError):
        return 2**63
    return max(0, int(most) - used) if most.isdigit() else 2**63
