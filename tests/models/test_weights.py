"""Loading weights: a checkpoint that does not fit is refused, with the tensor or file by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.checkpoints import Checkpoint
from tests.runner.driver import Driver, make_runner, outputs
from wheelpit.errors import ModelLoadError

PLAIN = Checkpoint("plain", "Llama")
TIED = Checkpoint("tied", "Llama", {"tie_word_embeddings": True})
SHARDED = Checkpoint("sharded", "Llama", shard_size="60KB")
NAME = "model.safetensors"
Tensors = dict[str, torch.Tensor]


def change(folder: Path, edit: Callable[[Tensors], object]) -> None:
    """Rewrite the folder's tensors."""
    tensors = load_file(folder / NAME)
    edit(tensors)
    save_file(tensors, folder / NAME)


def greedy(folder: Path, **options: object) -> list[int]:
    driver = Driver(make_runner(folder, **options))
    sequence = driver.add([5, 6, 7, 8])
    driver.finish([sequence], 12)
    return outputs(sequence)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    change(tmp_path, lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.weight"))
    with pytest.raises(ModelLoadError, match=r"lacks 1 .*model\.layers\.1\.self_attn\.k_proj"):
        make_runner(tmp_path)


def test_a_superfluous_tensor_is_named(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)}))
    with pytest.raises(ModelLoadError, match=r"model\.extra\.weight has no place"):
        make_runner(tmp_path)


def test_a_bias_that_config_does_not_mention_is_named(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    name = "model.layers.0.self_attn.q_proj.bias"
    change(tmp_path, lambda tensors: tensors.update({name: torch.ones(48)}))
    with pytest.raises(ModelLoadError, match=r"q_proj\.bias has no place"):
        make_runner(tmp_path)


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(47)}))
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight has shape \[47\].*\[48\]"):
        make_runner(tmp_path)


def test_integers_are_not_weights(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    whole = torch.ones(48, dtype=torch.int64)
    change(tmp_path, lambda tensors: tensors.update({"model.norm.weight": whole}))
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight holds torch\.int64"):
        make_runner(tmp_path)


def test_buffers_of_old_checkpoints_are_ignored(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    expected = greedy(tmp_path)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change(tmp_path, lambda tensors: tensors.update({name: torch.ones(6)}))
    assert greedy(tmp_path) == expected


def test_a_tied_model_may_ship_its_head_again(tmp_path: Path) -> None:
    TIED.save(tmp_path)
    expected = greedy(tmp_path)
    change(
        tmp_path,
        lambda tensors: tensors.update(
            {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        ),
    )
    assert greedy(tmp_path) == expected


@pytest.mark.parametrize("kept", [0, 4, 200, 20_000])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    PLAIN.save(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors (is corrupt|cannot be read)"):
        make_runner(tmp_path)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    (tmp_path / NAME).unlink()
    with pytest.raises(ModelLoadError, match=r"neither model\.safetensors nor"):
        make_runner(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    SHARDED.save(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(ModelLoadError, match=f"lacks {shards[1].name}, which"):
        make_runner(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    SHARDED.save(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"index\.json is not a valid index"):
        make_runner(tmp_path)


def test_stored_bfloat16_is_widened(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)

    def narrow(tensors: Tensors) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})

    change(tmp_path, narrow)
    expected = greedy(tmp_path)
    change(tmp_path, lambda t: t.update({name: tensor.float() for name, tensor in t.items()}))
    assert greedy(tmp_path) == expected


def test_dummy_weights_need_only_the_config_and_repeat(tmp_path: Path) -> None:
    PLAIN.save(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["hidden_size"] == 48
    assert greedy(tmp_path, load_format="dummy") == greedy(tmp_path, load_format="dummy")
