"""Reading config.json: what is supported is read, what is not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wheelpit.errors import ModelLoadError
from wheelpit.layers.rope_scaling import RopeScaling
from wheelpit.models.config import ModelConfig

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def read(folder: Path, generation: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    values = {name: value for name, value in {**LLAMA, **changes}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(values))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return ModelConfig.from_folder(folder)


def test_absent_fields_take_the_architectures_defaults(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.num_kv_heads, config.head_dim, config.rope_theta) == (4, 8, 10000.0)
    assert config.rms_norm_eps == 1e-6
    assert not config.tie_word_embeddings
    assert config.rope_scaling is None
    assert config.eos_token_ids == ()
    assert config.dtype == "float32"


def test_null_counts_as_absent(tmp_path: Path) -> None:
    config = read(tmp_path, head_dim=None, num_key_value_heads=None, rope_scaling=None)
    assert (config.head_dim, config.num_kv_heads) == (8, 4)


def test_eos_ids_of_both_files_are_joined_in_order(tmp_path: Path) -> None:
    config = read(tmp_path, {"eos_token_id": [7, 5]}, eos_token_id=5, bos_token_id=1)
    assert config.eos_token_ids == (5, 7)
    assert config.bos_token_id == 1


@pytest.mark.parametrize(
    ("changes", "theta", "scaling"),
    [
        ({"rope_theta": 500000.0}, 500000.0, None),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 2e4}}, 2e4, None),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            1e4,
            RopeScaling(kind="linear", factor=2.0),
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
            5e5,
            RopeScaling(kind="llama3", **LLAMA3),
        ),
        (
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}},
            5e5,
            RopeScaling(kind="llama3", **LLAMA3),
        ),
    ],
)
def test_rope_is_read_in_both_spellings(
    tmp_path: Path, changes: dict[str, Any], theta: float, scaling: RopeScaling | None
) -> None:
    config = read(tmp_path, **changes)
    assert (config.rope_theta, config.rope_scaling) == (theta, scaling)


def test_biases_follow_the_architecture(tmp_path: Path) -> None:
    def biases(**changes: Any) -> tuple[bool, bool, bool]:
        config = read(tmp_path, **changes)
        return config.has_qkv_bias, config.has_output_bias, config.has_mlp_bias

    assert biases() == (False, False, False)
    assert biases(attention_bias=True, mlp_bias=True) == (True, True, True)
    assert biases(architectures=["Qwen2ForCausalLM"]) == (True, False, False)
    assert biases(architectures=["Qwen3ForCausalLM"]) == (False, False, False)
    assert biases(architectures=["MistralForCausalLM"]) == (False, False, False)


def test_only_mistral_has_a_window_for_all_layers(tmp_path: Path) -> None:
    mistral = ["MistralForCausalLM"]
    assert read(tmp_path, architectures=mistral, sliding_window=64).sliding_window == 64
    assert read(tmp_path, architectures=mistral, sliding_window=None).sliding_window is None
    qwen = {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64}
    assert read(tmp_path, **qwen, use_sliding_window=False).sliding_window is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures names GPT2LMHeadModel; supported"),
        ({"architectures": "absent"}, "architectures must be a list"),
        ({"vocab_size": "absent"}, "vocab_size is missing"),
        ({"vocab_size": "100"}, "vocab_size is '100', must be a positive whole number"),
        ({"hidden_size": True}, "hidden_size is True, must be a positive whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads=4"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', must be a positive number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, must be true or false"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported is silu"),
        ({"eos_token_id": "end"}, "eos_token_id is 'end', must be a token id or a list"),
        ({"torch_dtype": "int8"}, "dtype is 'int8'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config .*gptq"),
        ({"num_local_experts": 8}, "num_local_experts makes this a mixture of experts"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling: factor is missing"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True},
            "use_sliding_window",
        ),
    ],
)
def test_what_cannot_be_served_is_named(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelLoadError, match=f"config.json.*: .*{problem}"):
        read(tmp_path, **changes)


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        ModelConfig.from_folder(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '"a"'])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"config\.json (is not valid JSON|must hold)"):
        ModelConfig.from_folder(tmp_path)
