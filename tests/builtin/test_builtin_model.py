"""The built-in model's folder is complete, small and what its configuration says."""

import json
from pathlib import Path
from typing import Any

import jinja2.sandbox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[2] / "src" / "wheelpit" / "builtin"
FILES = [
    "MODEL_CARD.md",
    "NOTICE",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]


def read(name: str) -> dict[str, Any]:
    """Return one of the folder's JSON files."""
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_the_folder_is_complete_and_at_most_48_megabytes() -> None:
    for name in FILES:
        assert (FOLDER / name).is_file(), name
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 48_000_000


def test_the_model_card_says_what_the_model_is_for() -> None:
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "demonstration and test model" in " ".join(card.split())[:400]


def expected_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Return every tensor's shape as Hugging Face names them; the head is tied."""
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "model.embed_tokens.weight": [config["vocab_size"], hidden],
        "model.norm.weight": [hidden],
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": [hidden],
            f"{prefix}.post_attention_layernorm.weight": [hidden],
            f"{prefix}.self_attn.q_proj.weight": [query, hidden],
            f"{prefix}.self_attn.k_proj.weight": [key, hidden],
            f"{prefix}.self_attn.v_proj.weight": [key, hidden],
            f"{prefix}.self_attn.o_proj.weight": [hidden, query],
            f"{prefix}.mlp.gate_proj.weight": [mlp, hidden],
            f"{prefix}.mlp.up_proj.weight": [mlp, hidden],
            f"{prefix}.mlp.down_proj.weight": [hidden, mlp],
        }
    return shapes


def test_tensors_have_the_names_shapes_and_dtype_of_the_config() -> None:
    expected = expected_shapes(read("config.json"))
    with safe_open(str(FOLDER / "model.safetensors"), framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(expected)
        for name, shape in expected.items():
            tensor = file.get_tensor(name)
            assert list(tensor.shape) == shape, name
            assert tensor.dtype == torch.bfloat16, name
            assert torch.isfinite(tensor).all(), name


def test_configs_agree_on_the_special_tokens(tokenizer: Tokenizer) -> None:
    config, generation = read("config.json"), read("generation_config.json")
    im_end = tokenizer.token_to_id("<|im_end|>")
    end_of_text = tokenizer.token_to_id("<|endoftext|>")
    pad = tokenizer.token_to_id("<|pad|>")
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert config["eos_token_id"] == im_end
    assert config["pad_token_id"] == generation["pad_token_id"] == pad
    assert generation["eos_token_id"] == [im_end, end_of_text]
    assert read("tokenizer_config.json")["eos_token"] == "<|im_end|>"


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_any_text_survives_a_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n\t  x\r\n",
        "def f(x):\n    return x  # ünïcödé",
        "日本語 🤖👩‍👩‍👧 \u0000 \ufeff",
        "1234567890 3.14",
        "<|im_start|>user\nhi<|im_end|>\n",
    ],
)
def test_odd_text_survives_a_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_digits_come_in_groups_of_at_most_three(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("12345678901234567890").tokens
    assert max(len(token) for token in tokens) <= 3


def test_the_template_renders_as_chatml(tokenizer: Tokenizer) -> None:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
    template = environment.from_string(read("tokenizer_config.json")["chat_template"])
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Bye"},
    ]
    text = template.render(messages=messages, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.encode(text).tokens.count("<|im_start|>") == 5
