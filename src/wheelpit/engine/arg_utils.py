"""The engine's arguments under vLLM's names, and their translation into an `EngineConfig`.

Every field that vLLM documents can be given. Those that mean something here are implemented;
the others accept vLLM's default and fail by name for anything else, so that a script never runs
with an option silently ignored. A misspelt name is the dataclass's own TypeError.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.engine.limits import Limits
from wheelpit.engine.restart_settings import RestartSettings
from wheelpit.engine.tenant_config import TenantConfig, load_tenant_config
from wheelpit.engine.unsupported_args import UnsupportedArgs
from wheelpit.errors import ConfigError

DTYPES = {
    "auto": "auto",
    "float": "float32",
    "float32": "float32",
    "half": "float16",
    "float16": "float16",
    "bfloat16": "bfloat16",
}

DEFAULT_MAX_NUM_SEQS = 128
DEFAULT_MAX_NUM_BATCHED_TOKENS = 2048

SERVER_BOUNDS: Mapping[str, int] = {"max_num_queued_reqs": 512, "max_num_queued_tokens": 2**18}
"""What `wheelpit serve` does not exceed unless told to. A program that embeds the engine knows how
much it submits, and has no bounds unless it asks for them."""


@dataclass
class EngineArgs(UnsupportedArgs):
    """Arguments of `LLM` and, with AsyncEngineArgs, of `AsyncLLMEngine`.

    `None` means: choose from the model and the machine. Raises ConfigError from
    `create_engine_config()`, naming the field.
    """

    # The model
    model: str = "builtin"
    """ "builtin", a Hugging Face folder, or a hub id."""
    served_model_name: str | list[str] | None = None
    tokenizer: str | None = None
    """A folder or hub id; None is the model's own."""
    skip_tokenizer_init: bool = False
    dtype: str = "auto"
    device: str = "auto"
    load_format: str = "auto"
    """auto, safetensors, or dummy (random weights from config.json alone)."""
    revision: str | None = None
    download_dir: str | None = None
    hf_token: str | bool | None = None
    seed: int = 0
    max_model_len: int | str | None = None
    """Tokens; "16k" (thousands) and "16K" (units of 1,024) are understood."""
    max_logprobs: int = 20
    generation_config: str = "auto"
    """auto: the model's generation_config.json gives sampling defaults; vllm: it does not."""
    override_generation_config: dict[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    """A file with a jinja template, or the template itself; None is the model's own."""

    # The cache
    block_size: int | None = None
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    enable_prefix_caching: bool | None = None

    # The scheduler
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_chunked_prefill: bool | None = None
    long_prefill_token_threshold: int = 0
    max_decode_slowdown: float = 1.75
    """How many times as long a step may take because of long prompts beside it; 0: no limit."""
    scheduling_policy: str = "fcfs"
    """fcfs, priority, deadline or fair: see scheduling/policies.py."""
    priority_ageing_s: float = 30.0
    """Seconds of waiting that make up for one level of priority; 0 never does."""

    # The process
    enforce_eager: bool = False
    """Compute with torch's own kernels only; on a CPU Wheelpit compiles some of its own."""
    num_threads: int | None = None
    """CPU threads of the engine process; None is the number of cores."""
    disable_log_stats: bool = False

    # Accepted and without effect: every value means what the engine does anyway
    tokenizer_mode: str = "auto"
    trust_remote_code: bool = False
    stream_interval: int = 1
    prefix_caching_hash_algo: str = "sha256"
    async_scheduling: bool | None = None
    disable_custom_all_reduce: bool = False
    enable_log_deltas: bool = True
    logprobs_mode: str = "raw_logprobs"

    def __post_init__(self) -> None:
        self.check_unsupported()
        if self.logprobs_mode != "raw_logprobs":
            raise ConfigError(
                f"logprobs_mode={self.logprobs_mode!r} is not supported; only 'raw_logprobs' is"
            )
        if self.stream_interval != 1:
            raise ConfigError(f"stream_interval={self.stream_interval} is not supported; only 1 is")

    def create_engine_config(self, folder: str, model_limit: int) -> EngineConfig:
        """Check the arguments and resolve what the front end can.

        folder: the model's local folder. model_limit: the longest context its config allows.
        """
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}, must be one of {', '.join(DTYPES)}")
        for name, allowed in (
            ("device", ("auto", "cpu", "cuda")),
            ("load_format", ("auto", "safetensors", "dummy")),
            ("generation_config", ("auto", "vllm")),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}, must be one of {', '.join(allowed)}")
        max_model_len = self._resolve_max_model_len(model_limit)
        max_num_seqs, max_num_batched_tokens = self._resolve_step_limits(max_model_len)
        return EngineConfig(
            model=ModelOptions(
                folder=folder,
                dtype=DTYPES[self.dtype],  # type: ignore[arg-type]  # the values are Dtype's
                device=self.device,  # type: ignore[arg-type]  # checked above
                load_format=self.load_format,  # type: ignore[arg-type]  # checked above
                max_model_len=max_model_len,
                seed=self.seed,
                enforce_eager=self.enforce_eager,
            ),
            cache=CacheConfig(
                block_size=16 if self.block_size is None else self.block_size,
                gpu_memory_utilization=self.gpu_memory_utilization,
                kv_cache_memory_bytes=self.kv_cache_memory_bytes,
                num_blocks=self.num_gpu_blocks_override,
                enable_prefix_caching=self.enable_prefix_caching is not False,
            ),
            scheduler=SchedulerConfig(
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                enable_chunked_prefill=self.enable_chunked_prefill is not False,
                long_prefill_token_threshold=self.long_prefill_token_threshold,
                max_decode_slowdown=self.max_decode_slowdown,
                policy=self.scheduling_policy,  # type: ignore[arg-type]  # SchedulerConfig checks
                priority_ageing_s=self.priority_ageing_s,
            ),
            max_logprobs=self.max_logprobs,
            num_threads=self.num_threads,
        )

    def _resolve_max_model_len(self, model_limit: int) -> int:
        if self.max_model_len in (None, -1, "auto"):
            return model_limit
        length = parse_length(self.max_model_len)
        if length > model_limit:
            raise ConfigError(
                f"max_model_len is {length}, the model's config allows {model_limit}: lower it"
            )
        return length

    def _resolve_step_limits(self, max_model_len: int) -> tuple[int, int]:
        """Fill in what is not given so that the two limits and the context agree."""
        seqs, tokens = self.max_num_seqs, self.max_num_batched_tokens
        if tokens is None:
            tokens = max(DEFAULT_MAX_NUM_BATCHED_TOKENS, seqs or 0)
            if self.enable_chunked_prefill is False:
                tokens = max(tokens, max_model_len)
        if seqs is None:
            seqs = min(DEFAULT_MAX_NUM_SEQS, max(tokens, 1))
        return seqs, tokens

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace) -> Self:
        """Take the attributes of an argparse namespace that are fields of this class."""
        names = {described.name for described in fields(cls)}
        return cls(**{name: value for name, value in vars(args).items() if name in names})

    @property
    def served_model_names(self) -> tuple[str, ...]:
        """The names requests may use; the first is echoed and labels the metrics."""
        if self.served_model_name is None:
            return (self.model,)
        if isinstance(self.served_model_name, str):
            return (self.served_model_name,)
        return tuple(self.served_model_name) or (self.model,)


@dataclass
class AsyncEngineArgs(EngineArgs):
    """EngineArgs for the online engine."""

    enable_log_requests: bool = False
    """Log each request's parameters when it arrives."""

    # Admission (engine/admission.py); None is no limit
    max_num_queued_reqs: int | None = None
    """Sequences that wait beyond the free seats; who comes then gets OverloadedError."""
    max_num_queued_tokens: int | None = None
    """Prompt tokens of those that wait."""
    default_timeout: float | None = None
    """Seconds from arrival to the end of a request that does not say itself."""
    default_queue_timeout: float | None = None
    """Likewise to its start."""
    default_ttft_timeout: float | None = None
    """Likewise to its first token."""
    refuse_late: bool = False
    """Refuse a request that would, as things stand, start after one of its deadlines."""
    tenant_config: str | None = None
    """A TOML file with limits of tenants: see engine/tenant_config.py."""
    engine_stall_timeout: float = 20.0
    """Seconds without a finished step, with work to do, after which the engine is replaced."""
    max_restarts: int = 5
    """How many engines may die within `restart_window` seconds before all is given up."""
    restart_window: float = 300.0

    @classmethod
    def for_server(cls, given: Mapping[str, Any]) -> Self:
        """Build from a server's flags: what is not in them is bounded by `SERVER_BOUNDS`.

        A bound that is given as None is off.
        """
        return cls(**{**SERVER_BOUNDS, **given})

    def load_tenants(self) -> TenantConfig:
        """Read the tenants' file, if there is one. ConfigError."""
        return (
            TenantConfig() if self.tenant_config is None else load_tenant_config(self.tenant_config)
        )

    def create_restart_settings(self) -> RestartSettings:
        """When the engine is replaced. ConfigError."""
        return RestartSettings(
            stall_timeout_s=self.engine_stall_timeout,
            max_restarts=self.max_restarts,
            window_s=self.restart_window,
        )

    def create_limits(self, tenants: TenantConfig) -> Limits:
        """What the engine takes on. ConfigError."""
        return Limits(
            max_num_queued_reqs=self.max_num_queued_reqs,
            max_num_queued_tokens=self.max_num_queued_tokens,
            default_timeout_s=self.default_timeout,
            default_queue_timeout_s=self.default_queue_timeout,
            default_ttft_timeout_s=self.default_ttft_timeout,
            refuse_late=self.refuse_late,
            tenants=tenants.tenants,
            default_tenant=tenants.default,
        )


def parse_length(value: int | str | None) -> int:
    """4096, "4096", "4k" (4,000) or "4K" (4,096) as a number of tokens."""
    text = str(value).strip()
    factor = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}.get(text[-1:], 1)
    digits = text[:-1] if factor != 1 else text
    try:
        length = float(digits) * factor
    except ValueError:
        length = -1.0
    if length < 1 or length != int(length):
        raise ConfigError(
            f"max_model_len is {value!r}, must be a number of tokens such as 4096 or 16k"
        )
    return int(length)
