"""Which class serves which architecture."""

from __future__ import annotations

from wheelpit.layers.placement import Placement
from wheelpit.models.config import ModelConfig
from wheelpit.models.llama import LlamaForCausalLM
from wheelpit.models.qwen2 import Qwen2ForCausalLM
from wheelpit.models.qwen3 import Qwen3ForCausalLM

Model = LlamaForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM

MODELS: dict[str, type[Model]] = {
    "LlamaForCausalLM": LlamaForCausalLM,
    "MistralForCausalLM": LlamaForCausalLM,
    "Qwen2ForCausalLM": Qwen2ForCausalLM,
    "Qwen3ForCausalLM": Qwen3ForCausalLM,
}


def build_model(config: ModelConfig, num_positions: int, placement: Placement) -> Model:
    """Allocate the model; its weights are whatever was in memory.

    num_positions: the longest sequence it will see.
    """
    return MODELS[config.architecture](config, num_positions, placement)
