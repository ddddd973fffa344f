"""Write a Hugging Face Llama checkpoint as a GGUF file, to measure llama.cpp on the same weights.

    python benchmarks/make_gguf.py MODEL_FOLDER OUT.gguf --type bf16|q8_0

Needs numpy and the `gguf` package, and runs in any environment that has both (not torch).
llama.cpp's own converter refuses tokenizers that it does not know by hash; this one writes a
byte-level BPE tokenizer with GPT-2's pre-tokenizer, which may split rare text differently. That
changes no speed when prompts are sent as token ids, as cpu_serving.py does.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

TYPES = {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
FloatArray = NDArray[np.float32]


def main() -> None:
    """Convert the checkpoint named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=sorted(TYPES), default="bf16")
    arguments = parser.parse_args()
    convert(arguments.model, arguments.out, arguments.type)


def convert(model: Path, out: Path, type_name: str) -> None:
    """Write `out`: hyperparameters, tokenizer and tensors of the checkpoint in folder `model`."""
    config = json.loads((model / "config.json").read_text())
    writer = gguf.GGUFWriter(str(out), "llama")
    add_hyperparameters(writer, config)
    writer.add_file_type(FILE_TYPES[type_name])
    add_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()), config)
    for name, tensor in read_tensors(model):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        add_tensor(writer, name, tensor, config, TYPES[type_name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_hyperparameters(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Add the shape of the model; refuse what this converter would get wrong."""
    if config["model_type"] != "llama" or config.get("rope_scaling"):
        raise SystemExit(f"model is {config['model_type']!r}: only plain Llama is converted")
    num_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // num_heads
    rope = config.get("rope_parameters") or {}
    writer.add_name("model")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]
) -> None:
    """Add a byte-level BPE vocabulary, padded to the model's, and its merges."""
    vocab = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens, types = [], []
    for index in range(config["vocab_size"]):
        if index in special:
            tokens.append(special[index])
            types.append(gguf.TokenType.CONTROL)
        elif index in vocab:
            tokens.append(vocab[index])
            types.append(gguf.TokenType.NORMAL)
        else:
            tokens.append(f"[PAD{index}]")
            types.append(gguf.TokenType.UNUSED)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)
    for add, key in ((writer.add_bos_token_id, "bos"), (writer.add_eos_token_id, "eos")):
        token_id = config.get(f"{key}_token_id")
        if token_id is not None:
            add(token_id[0] if isinstance(token_id, list) else token_id)


def add_tensor(
    writer: gguf.GGUFWriter,
    name: str,
    tensor: FloatArray,
    config: dict[str, Any],
    weight_type: gguf.GGMLQuantizationType,
) -> None:
    """Add one tensor under llama.cpp's name: matrices in `weight_type`, norms in float32."""
    if name.endswith("q_proj.weight"):
        tensor = interleave_rotary(tensor, config["num_attention_heads"])
    elif name.endswith("k_proj.weight"):
        tensor = interleave_rotary(tensor, config["num_key_value_heads"])
    if tensor.ndim == 1:
        writer.add_tensor(gguf_name(name), tensor)
    else:
        data = gguf.quants.quantize(tensor, weight_type)
        writer.add_tensor(gguf_name(name), data, raw_dtype=weight_type)


def gguf_name(name: str) -> str:
    """Translate a Hugging Face tensor name."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    if not layer.isdecimal() or part not in LAYER_NAMES or kind != "weight":
        raise SystemExit(f"tensor {name!r} has no place in a plain Llama")
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def interleave_rotary(weight: FloatArray, num_heads: int) -> FloatArray:
    """Reorder rows from rotated halves (Hugging Face) to rotated pairs (GGUF), head by head."""
    pairs = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def read_tensors(model: Path) -> Iterator[tuple[str, FloatArray]]:
    """Yield every tensor of the folder's safetensors files as float32."""
    for path in sorted(model.glob("*.safetensors")):
        data = np.memmap(path, dtype=np.uint8, mode="r")
        header_size = int(data[:8].view(np.uint64)[0])
        header = json.loads(bytes(data[8 : 8 + header_size]))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
            yield name, as_float32(data[begin:end], entry["dtype"]).reshape(entry["shape"])


def as_float32(raw: NDArray[np.uint8], dtype: str) -> FloatArray:
    """Decode little-endian BF16, F16 or F32 bytes."""
    raw = np.array(raw)  # a copy is aligned, the file's bytes need not be
    if dtype == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return raw.view(np.float16).astype(np.float32)
    if dtype == "F32":
        return raw.view(np.float32)
    raise SystemExit(f"dtype is {dtype}: expected BF16, F16 or F32")


if __name__ == "__main__":
    main()
