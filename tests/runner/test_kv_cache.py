"""How many blocks the cache gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.errors import ConfigError
from wheelpit.models.config import ModelConfig
from wheelpit.runner import kv_cache
from wheelpit.runner.kv_cache import allocate_cache, block_bytes, choose_num_blocks

CPU = torch.device("cpu")
MODEL = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=100,
    hidden_size=32,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=64,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
    rope_scaling=None,
    has_qkv_bias=False,
    has_output_bias=False,
    has_mlp_bias=False,
    tie_word_embeddings=True,
    max_position_embeddings=512,
    sliding_window=None,
    dtype="float32",
    bos_token_id=None,
    eos_token_ids=(),
)
BLOCK_BYTES = 4 * 2 * 2 * 8 * 16 * 4


def choose(max_model_len: int = 160, max_num_seqs: int = 8, **cache: Any) -> int:
    config = EngineConfig(
        model=ModelOptions(folder="", max_model_len=max_model_len),
        cache=CacheConfig(**cache),
        scheduler=SchedulerConfig(max_num_seqs=max_num_seqs),
    )
    return choose_num_blocks(config, MODEL, torch.float32, CPU)


def test_a_block_holds_keys_and_values_of_all_layers() -> None:
    assert block_bytes(MODEL, 16, torch.float32) == BLOCK_BYTES
    assert block_bytes(MODEL, 16, torch.bfloat16) == BLOCK_BYTES // 2
    cache = allocate_cache(MODEL, 16, 5, torch.float32, CPU)
    assert cache.memory.nbytes == 5 * BLOCK_BYTES
    assert cache.num_blocks == 5
    assert not cache.memory.any()


def test_num_blocks_wins_over_bytes() -> None:
    assert choose(num_blocks=33, kv_cache_memory_bytes=BLOCK_BYTES) == 33


def test_bytes_are_rounded_down_to_blocks() -> None:
    assert choose(kv_cache_memory_bytes=12 * BLOCK_BYTES + 1) == 12
    with pytest.raises(ConfigError, match="kv_cache_memory_bytes"):
        choose(kv_cache_memory_bytes=10 * BLOCK_BYTES - 1)


def test_auto_takes_no_more_than_all_sequences_can_use() -> None:
    assert choose(max_model_len=161, max_num_seqs=8) == 11 * 8


def test_auto_takes_at_most_a_gibibyte() -> None:
    most = 2**30 // BLOCK_BYTES
    assert choose(max_model_len=16 * most, max_num_seqs=3) == most


def test_auto_takes_more_than_that_if_one_sequence_needs_it() -> None:
    needed = 2**30 // BLOCK_BYTES + 100
    assert choose(max_model_len=16 * needed, max_num_seqs=3) == needed


def test_auto_takes_its_share_of_the_available_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "available_bytes", lambda: 40 * BLOCK_BYTES)
    assert choose(gpu_memory_utilization=0.5) == 20
    with pytest.raises(ConfigError, match=r"holds 128 tokens .*max_model_len=160"):
        choose(gpu_memory_utilization=0.2)


def test_a_cache_too_small_for_one_sequence_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"holds 144 tokens \(num_blocks=9\).*max_model_len=160"):
        choose(num_blocks=9)
    assert choose(num_blocks=10) == 10


def test_the_available_memory_is_known_here() -> None:
    assert 2**26 < kv_cache.available_bytes() < 2**50


def test_clearing_blocks_leaves_the_others() -> None:
    cache = allocate_cache(MODEL, 16, 4, torch.float32, CPU)
    cache.memory.fill_(torch.nan)
    cache.clear(torch.tensor([2, 0]))
    is_nan = cache.memory.isnan().flatten(2).all(-1).all(0)
    assert is_nan.tolist() == [False, True, False, True]
