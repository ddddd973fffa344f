"""Read a model's shape from its config.json, or say by name why it cannot be served.

Used by the front end (limits, vocabulary, EOS) and by the engine process (everything else). No
torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wheelpit.errors import ModelLoadError
from wheelpit.layers.rope_scaling import RopeScaling

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""What `models/registry.py` can build."""

WeightDtype = Literal["float32", "bfloat16", "float16"]

_DTYPES: dict[str, WeightDtype] = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder-only language model."""

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    """Need not be hidden_size / num_heads."""
    intermediate_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    has_qkv_bias: bool
    has_output_bias: bool
    """Whether the attention's output projection has a bias."""
    has_mlp_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    sliding_window: int | None
    """A token attends to itself and the sliding_window - 1 tokens before it; None is all."""
    dtype: WeightDtype
    """Of the weights as they are stored."""
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    """Those of config.json first, then those of generation_config.json."""

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read config.json and, if there is one, generation_config.json.

        Raises ModelLoadError naming the file and the field.
        """
        folder = Path(folder)
        fields = _Fields.read(folder / "config.json")
        generation_path = folder / "generation_config.json"
        generation = _Fields.read(generation_path) if generation_path.is_file() else None
        return _parse(fields, generation)


def _parse(fields: _Fields, generation: _Fields | None) -> ModelConfig:
    architecture = _architecture(fields)
    _refuse_unsupported(fields)
    hidden_size = fields.count("hidden_size")
    num_heads = fields.count("num_attention_heads")
    num_kv_heads = fields.count("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise fields.error("num_key_value_heads", f"must divide num_attention_heads={num_heads}")
    head_dim = fields.count("head_dim", hidden_size // num_heads)
    if head_dim % 2:
        raise fields.error("head_dim", f"is {head_dim}; rotary embedding needs an even number")
    rope_theta, rope_scaling = _rope(fields)
    has_attention_bias = architecture != "MistralForCausalLM" and fields.flag("attention_bias")
    eos_token_ids = fields.token_ids("eos_token_id")
    if generation is not None:
        eos_token_ids += generation.token_ids("eos_token_id")
    bos_token_ids = fields.token_ids("bos_token_id")
    return ModelConfig(
        architecture=architecture,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        num_layers=fields.count("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=fields.count("intermediate_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        has_qkv_bias=has_attention_bias or architecture == "Qwen2ForCausalLM",
        has_output_bias=has_attention_bias and architecture != "Qwen2ForCausalLM",
        has_mlp_bias=architecture == "LlamaForCausalLM" and fields.flag("mlp_bias"),
        tie_word_embeddings=fields.flag("tie_word_embeddings"),
        max_position_embeddings=fields.count("max_position_embeddings"),
        sliding_window=_sliding_window(fields, architecture),
        dtype=_dtype(fields),
        bos_token_id=bos_token_ids[0] if bos_token_ids else None,
        eos_token_ids=tuple(dict.fromkeys(eos_token_ids)),
    )


def _architecture(fields: _Fields) -> str:
    named = fields.values.get("architectures")
    if not isinstance(named, list) or not named or not all(isinstance(n, str) for n in named):
        raise fields.error("architectures", "must be a list with the model's class name")
    if named[0] not in ARCHITECTURES:
        raise fields.error(
            "architectures", f"names {named[0]}; supported are {', '.join(ARCHITECTURES)}"
        )
    return str(named[0])


def _refuse_unsupported(fields: _Fields) -> None:
    quantization = fields.values.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise fields.error(
            "quantization_config",
            f"asks for quantized weights ({method or 'of unknown method'}), which are not "
            "supported: use the unquantized model",
        )
    for name in ("num_experts", "num_local_experts"):
        if fields.values.get(name):
            raise fields.error(name, "makes this a mixture of experts, which is not supported")
    activation = fields.values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise fields.error("hidden_act", f"is {activation!r}; supported is silu")


def _rope(fields: _Fields) -> tuple[float, RopeScaling | None]:
    """Read the base frequency and its scaling, from either of the two ways to write them.

    transformers 5 has one `rope_parameters`; before that there were `rope_theta` and
    `rope_scaling`, whose kind is `rope_type` or, older still, `type`.
    """
    name = "rope_parameters" if fields.values.get("rope_parameters") else "rope_scaling"
    found = fields.values.get(name)
    if found is None:
        return fields.number("rope_theta", 10000.0), None
    if not isinstance(found, dict):
        raise fields.error(name, "must be an object")
    rope = _Fields(found, f"{fields.source}: {name}")
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=rope.number("factor"))
    if kind == "llama3":
        return theta, RopeScaling(
            kind="llama3",
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_position_embeddings=rope.count("original_max_position_embeddings"),
        )
    raise rope.error("rope_type", f"is {kind!r}; supported are default, linear and llama3")


def _sliding_window(fields: _Fields, architecture: str) -> int | None:
    """Mistral's window holds for every layer; Qwen's is optional and differs between layers."""
    if architecture == "MistralForCausalLM":
        return fields.count("sliding_window") if fields.values.get("sliding_window") else None
    if architecture.startswith("Qwen") and fields.flag("use_sliding_window"):
        raise fields.error(
            "use_sliding_window", "asks for a window in some layers only, which is not supported"
        )
    return None


def _dtype(fields: _Fields) -> WeightDtype:
    name = fields.values.get("dtype") or fields.values.get("torch_dtype") or "float32"
    if name not in _DTYPES:
        raise fields.error("dtype", f"is {name!r}; supported are {', '.join(_DTYPES)}")
    return _DTYPES[name]


@dataclass(frozen=True, slots=True)
class _Fields:
    """A JSON object whose entries are read by type; errors name the file and the entry."""

    values: dict[str, Any]
    source: str

    @classmethod
    def read(cls, path: Path) -> _Fields:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelLoadError(
                f"{path.parent} has no {path.name}: give a folder with a model in Hugging Face's "
                "format"
            ) from error
        except OSError as error:
            raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ModelLoadError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ModelLoadError(f"{path} must hold a JSON object")
        return cls(values, str(path))

    def error(self, name: str, problem: str) -> ModelLoadError:
        return ModelLoadError(f"{self.source}: {name} {problem}")

    def count(self, name: str, default: int | None = None) -> int:
        """Read a positive whole number; null counts as missing."""
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise self.error(name, "is missing")
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(name, f"is {value!r}, must be a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Read a positive number; null counts as missing."""
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise self.error(name, "is missing")
            value = default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise self.error(name, f"is {value!r}, must be a positive number")
        return float(value)

    def flag(self, name: str) -> bool:
        """Read true or false; missing and null are false."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, f"is {value!r}, must be true or false")
        return bool(value)

    def token_ids(self, name: str) -> tuple[int, ...]:
        """Read one token id, a list of them, or none."""
        value = self.values.get(name)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in found):
            raise self.error(name, f"is {value!r}, must be a token id or a list of them")
        return tuple(found)
