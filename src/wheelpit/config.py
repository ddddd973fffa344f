"""The resolved configuration of an engine: frozen, composed, checked when built.

`engine/arg_utils.py` builds it from the caller's arguments; it travels to the engine process in
the first message. What only the engine process can decide ("auto" for dtype, device and cache
size needs torch and the machine) is `None` or "auto" here and resolved once by
`runner/model_runner.py`, which logs it and reports it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from wheelpit.errors import ConfigError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
LoadFormat = Literal["auto", "safetensors", "dummy"]
SchedulingPolicy = Literal["fcfs", "priority", "deadline", "fair"]


def require(is_valid: bool, field_name: str, value: object, rule: str) -> None:
    """Raise ConfigError naming the field, the value and the allowed range."""
    if not is_valid:
        raise ConfigError(f"{field_name} is {value!r}, must be {rule}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model to run and how."""

    folder: str
    """A local Hugging Face folder; hub ids are resolved before this is built."""
    dtype: Dtype = "auto"
    device: Device = "auto"
    load_format: LoadFormat = "auto"
    max_model_len: int
    """Most tokens (prompt + output) of one sequence."""
    seed: int = 0
    enforce_eager: bool = False
    """Compute with torch's own kernels only."""

    def __post_init__(self) -> None:
        require(self.max_model_len >= 2, "max_model_len", self.max_model_len, "at least 2")
        require(0 <= self.seed < 2**63, "seed", self.seed, "in [0, 2**63)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """The paged KV cache."""

    block_size: int = 16
    """Tokens per block."""
    gpu_memory_utilization: float = 0.92
    """Share of the device's memory (GPU) or of the available RAM (CPU) the engine may use."""
    kv_cache_memory_bytes: int | None = None
    """Exact size of the cache; overrides gpu_memory_utilization."""
    num_blocks: int | None = None
    """Exact number of blocks; overrides both."""
    enable_prefix_caching: bool = True

    def __post_init__(self) -> None:
        size = self.block_size
        require(
            size in (1, 2, 4, 8, 16, 32, 64, 128, 256), "block_size", size, "a power of two <= 256"
        )
        require(
            0.0 < self.gpu_memory_utilization <= 1.0,
            "gpu_memory_utilization",
            self.gpu_memory_utilization,
            "in (0, 1]",
        )
        for name in ("kv_cache_memory_bytes", "num_blocks"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """The limits of one step."""

    max_num_seqs: int = 128
    max_num_batched_tokens: int = 2048
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    """Most prompt tokens of one sequence in one step; 0 is no limit but the budget."""
    max_decode_slowdown: float = 1.75
    """How many times as long as the decoding alone a step may take because of prefills beside it;
    0 is no limit but the budget. The smaller, the steadier the streams and the later the first
    tokens."""
    policy: SchedulingPolicy = "fcfs"
    priority_ageing_s: float = 30.0
    """Seconds of waiting that make up for one level of priority; 0 never does."""

    def __post_init__(self) -> None:
        require(self.max_num_seqs >= 1, "max_num_seqs", self.max_num_seqs, "at least 1")
        require(
            self.max_num_batched_tokens >= self.max_num_seqs,
            "max_num_batched_tokens",
            self.max_num_batched_tokens,
            f"at least max_num_seqs={self.max_num_seqs}",
        )
        require(
            self.long_prefill_token_threshold >= 0,
            "long_prefill_token_threshold",
            self.long_prefill_token_threshold,
            "at least 0",
        )
        slowdown = self.max_decode_slowdown
        require(
            slowdown == 0.0 or 1.0 < slowdown < float("inf"),
            "max_decode_slowdown",
            slowdown,
            "above 1, or 0 for no limit",
        )
        policies = get_args(SchedulingPolicy)
        require(self.policy in policies, "policy", self.policy, f"one of {', '.join(policies)}")
        require(
            0.0 <= self.priority_ageing_s < float("inf"),
            "priority_ageing_s",
            self.priority_ageing_s,
            "at least 0, and finite",
        )


@dataclass(frozen=True, slots=True)
class ComputePlan:
    """How a CPU multiplies best: see runner/compute_plan.py."""

    threads: tuple[tuple[int, int], ...]
    """(most rows of a step, its threads), by rows; a step of more rows gets all."""
    plain_rows: int
    """So many rows, and fewer, are multiplied by the plain weights, which are kept for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything the engine process needs to know."""

    model: ModelOptions
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    max_logprobs: int = 20
    """Most `logprobs` a request may ask for; -1 is the whole vocabulary."""
    num_threads: int | None = None
    """Most CPU threads of the engine process; None is the number of cores."""
    compute_plan: ComputePlan | None = None
    """None measures one. An engine that replaces another gets the other's: what a request
    computes may not depend on that."""

    def __post_init__(self) -> None:
        require(self.max_logprobs >= -1, "max_logprobs", self.max_logprobs, "at least -1")
        require(
            self.num_threads is None or self.num_threads >= 1,
            "num_threads",
            self.num_threads,
            "at least 1, or None",
        )
        if not self.scheduler.enable_chunked_prefill:
            require(
                self.scheduler.max_num_batched_tokens >= self.model.max_model_len,
                "max_num_batched_tokens",
                self.scheduler.max_num_batched_tokens,
                f"at least max_model_len={self.model.max_model_len} without chunked prefill",
            )
