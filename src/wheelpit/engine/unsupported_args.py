"""vLLM's engine arguments that have no meaning here, with vLLM's defaults.

A script that sets one of them to its default runs; any other value fails by name, because it asks
for something that would not happen.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from wheelpit.errors import ConfigError


@dataclass(kw_only=True)
class UnsupportedArgs:
    """Base of EngineArgs."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    distributed_executor_backend: Any = None
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    code_revision: str | None = None
    tokenizer_revision: str | None = None
    hf_config_path: str | None = None
    hf_overrides: dict[str, Any] = field(default_factory=dict)
    runner: str = "auto"
    convert: str = "auto"
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    max_cpu_loras: int | None = None
    enable_sleep_mode: bool = False
    enable_prompt_embeds: bool = False
    limit_mm_per_prompt: dict[str, Any] = field(default_factory=dict)
    mm_processor_kwargs: dict[str, Any] | None = None
    otlp_traces_endpoint: str | None = None
    kv_cache_metrics: bool = False
    enable_mfu_metrics: bool = False
    show_hidden_metrics_for_version: str | None = None
    structured_outputs_config: dict[str, Any] | None = None
    reasoning_parser: str = ""
    reasoning_config: dict[str, Any] | None = None
    speculative_config: dict[str, Any] | None = None
    compilation_config: dict[str, Any] | int | None = None
    optimization_level: int | None = None
    attention_backend: str | None = None
    kv_transfer_config: dict[str, Any] | None = None
    kv_events_config: dict[str, Any] | None = None
    cpu_offload_gb: float = 0
    swap_space: float = 4
    max_num_partial_prefills: int = 1
    max_long_partial_prefills: int = 1
    scheduler_cls: Any = None
    worker_cls: str = "auto"
    worker_extension_cls: str = ""
    logits_processors: list[Any] | None = None
    additional_config: dict[str, Any] = field(default_factory=dict)

    def check_unsupported(self) -> None:
        """Raise ConfigError for the first field that is not at its default."""
        for described in fields(UnsupportedArgs):
            default = {} if described.default is MISSING else described.default
            value = getattr(self, described.name)
            if value != default:
                raise ConfigError(
                    f"{described.name}={value!r} is not supported; "
                    f"leave it out or at its default, {default!r}"
                )
