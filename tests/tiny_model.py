"""A model folder small enough for tests: a byte-level tokenizer and a config.

Token ids are bytes in GPT-2's order plus three special tokens. Without weights it is good for the
fake worker and for `load_format="dummy"`, whose tiny numbers make a model that repeats its last
token; `add_weights` makes one whose every token depends on all before it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

EOS = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 259,
    "bos_token_id": None,
    "eos_token_id": 2,
}


def make_tokenizer() -> Tokenizer:
    """Specials first (0 pad, 1 start, 2 end), then the 256 bytes."""
    specials = ["<|pad|>", "<|im_start|>", EOS]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in specials]
    )
    return tokenizer


def make_model_folder(folder: Path, **config: Any) -> Path:
    """Write config.json and the tokenizer's files; config overrides single entries."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": EOS, "pad_token": "<|pad|>", "chat_template": CHAT_TEMPLATE})
    )
    return folder


def add_weights(folder: Path, seed: int = 0) -> Path:
    """Write random weights, large enough that attention decides. The folder's head is untied."""
    # Only here: a front end must be testable without them.
    import numpy as np
    from safetensors.numpy import save_file

    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "tie_word_embeddings": False}
    path.write_text(json.dumps(config))
    hidden, middle, vocab = (
        config[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens": (vocab, hidden), "lm_head": (vocab, hidden)}
    norms = ["model.norm"]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        norms += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"]
        shapes |= {
            f"{layer}.self_attn.q_proj": (queries, hidden),
            f"{layer}.self_attn.k_proj": (keys, hidden),
            f"{layer}.self_attn.v_proj": (keys, hidden),
            f"{layer}.self_attn.o_proj": (hidden, queries),
            f"{layer}.mlp.gate_proj": (middle, hidden),
            f"{layer}.mlp.up_proj": (middle, hidden),
            f"{layer}.mlp.down_proj": (hidden, middle),
        }
    rng = np.random.default_rng(seed)
    tensors = {f"{name}.weight": np.ones(hidden, np.float32) for name in norms}
    for name, shape in shapes.items():
        std = 1.0 if name == "model.embed_tokens" else 2.0 / shape[1] ** 0.5
        tensors[f"{name}.weight"] = rng.normal(0.0, std, shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder
