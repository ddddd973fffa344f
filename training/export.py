"""Write a trained model as a Hugging Face folder: bf16 safetensors, tokenizer, configs."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from model import ModelConfig
from safetensors.torch import load_file, save_file
from tokenizer import CHAT_TEMPLATE, END_OF_TEXT, IM_END, PAD, SPECIAL_TOKENS
from tokenizers import Tokenizer


def model_config(config: ModelConfig, ids: dict[str, int]) -> dict[str, Any]:
    """Return config.json of a Llama of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "bos_token_id": ids[END_OF_TEXT],
        "eos_token_id": ids[IM_END],
        "pad_token_id": ids[PAD],
    }


def tokenizer_config(config: ModelConfig, ids: dict[str, int]) -> dict[str, Any]:
    """Return tokenizer_config.json with the chat template."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context,
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {
            str(ids[token]): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in SPECIAL_TOKENS
        },
    }


def generation_config(ids: dict[str, int]) -> dict[str, Any]:
    """Return generation_config.json: the demonstration's sampling defaults."""
    return {
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.9,
        "repetition_penalty": 1.05,
        "eos_token_id": [ids[IM_END], ids[END_OF_TEXT]],
        "pad_token_id": ids[PAD],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export(weights: Path, tokenizer: Path, out: Path, config: ModelConfig) -> None:
    """Write the folder."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(str(weights)).items()}
    save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    shutil.copy(tokenizer, out / "tokenizer.json")
    vocabulary = Tokenizer.from_file(str(tokenizer))
    ids = {token: vocabulary.token_to_id(token) for token in SPECIAL_TOKENS}
    write_json(out / "config.json", model_config(config, ids))
    write_json(out / "tokenizer_config.json", tokenizer_config(config, ids))
    write_json(out / "generation_config.json", generation_config(ids))


def main() -> None:
    """Export --weights and --tokenizer to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a safetensors of train.py")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=12)
    args = parser.parse_args()
    export(args.weights, args.tokenizer, args.out, ModelConfig(num_layers=args.layers))


if __name__ == "__main__":
    main()
