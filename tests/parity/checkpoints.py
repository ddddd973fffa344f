"""Tiny random checkpoints of every supported architecture, made with transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

VOCAB_SIZE = 160
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Checkpoint:
    """A variant: transformers' config class and what differs from SHAPE."""

    name: str
    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    shard_size: str | None = None

    def save(self, folder: Path) -> transformers.PreTrainedModel:
        """Write the folder and return the model, in float32."""
        config_class = getattr(transformers, f"{self.kind}Config")
        config = config_class(**{**SHAPE, **self.changes})
        torch.manual_seed(sum(map(ord, self.name)))
        model = getattr(transformers, f"{self.kind}ForCausalLM")(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # Larger than transformers' own: logits far apart make greedy tokens comparable.
                if parameter.dim() == 1:
                    parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
                else:
                    parameter.normal_(0.0, 0.15)
        model.save_pretrained(folder, max_shard_size=self.shard_size or "50GB")
        return model


CHECKPOINTS = [
    Checkpoint("llama", "Llama"),
    Checkpoint("llama tied", "Llama", {"tie_word_embeddings": True}),
    Checkpoint("llama sharded", "Llama", shard_size="60KB"),
    Checkpoint("llama3 rope", "Llama", {"rope_parameters": LLAMA3_ROPE}),
    Checkpoint(
        "llama linear rope",
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}},
    ),
    Checkpoint("llama biases", "Llama", {"attention_bias": True, "mlp_bias": True}),
    Checkpoint("llama wide heads", "Llama", {"head_dim": 32}),
    Checkpoint("llama no grouping", "Llama", {"num_key_value_heads": 4}),
    Checkpoint("llama one kv head", "Llama", {"num_key_value_heads": 1}),
    Checkpoint("mistral", "Mistral", {"sliding_window": None}),
    Checkpoint("mistral window", "Mistral", {"sliding_window": 20}),
    Checkpoint("qwen2", "Qwen2"),
    Checkpoint("qwen2 tied", "Qwen2", {"tie_word_embeddings": True}),
    Checkpoint("qwen3", "Qwen3", {"head_dim": 24}),
    Checkpoint("qwen3 biases", "Qwen3", {"head_dim": 16, "attention_bias": True}),
]
