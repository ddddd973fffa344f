"""Fill a model with the weights of its folder, tensor by tensor.

Called once by `runner/model_runner.py`. Every tensor the model needs is found or named in the
error, and so is every tensor the model has no use for: a checkpoint that does not fit is refused,
not served wrongly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wheelpit.errors import ModelLoadError
from wheelpit.layers.embedding import Embedding
from wheelpit.layers.linear import Linear
from wheelpit.layers.norm import RMSNorm
from wheelpit.layers.stored import Stored
from wheelpit.models.registry import Model

Layer = Embedding | Linear | RMSNorm

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_NOT_WEIGHTS = re.compile(r".*\.(rotary_emb\.inv_freq|masked_bias|attn\.bias)")
"""Buffers that older versions of transformers saved; all are computed here."""

DUMMY_STD = 0.02


def load_weights(model: Model, folder: Path) -> None:
    """Copy the safetensors file(s) of the folder into the model, then seal its layers.

    Raises ModelLoadError naming the file or the tensor that is missing, broken or superfluous.
    """
    targets = weight_targets(model)
    missing = dict.fromkeys(targets)
    for name, tensor, path in _stored_tensors(folder):
        target = targets.get(name)
        if target is None:
            if not _is_superfluous(name):
                continue
            raise ModelLoadError(f"{path}: tensor {name} has no place in {type(model).__name__}")
        if tuple(tensor.shape) != target.shape:
            raise ModelLoadError(
                f"{path}: tensor {name} has shape {list(tensor.shape)}, config.json asks for "
                f"{list(target.shape)}"
            )
        if not tensor.is_floating_point():
            raise ModelLoadError(f"{path}: tensor {name} holds {tensor.dtype}, not floats")
        target.load(tensor)
        missing.pop(name, None)
    if missing:
        shown = ", ".join(list(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelLoadError(f"{folder} lacks {len(missing)} of the model's tensors: {shown}")
    seal(model)


def load_dummy_weights(model: Model, seed: int) -> None:
    """Fill the model with small random numbers, the same for the same seed, and seal it."""
    generator = torch.Generator().manual_seed(seed)
    for name, target in weight_targets(model).items():
        if name.endswith("norm.weight"):
            target.load(torch.ones(target.shape))
        elif name.endswith(".bias"):
            target.load(torch.zeros(target.shape))
        else:
            # Drawn on the CPU in float32, so that every dtype and device gets the same model.
            target.load(torch.empty(target.shape).normal_(std=DUMMY_STD, generator=generator))
    seal(model)


def weight_targets(model: Model) -> dict[str, Stored]:
    """Return, for the name of every tensor in a checkpoint, the place it goes to."""
    targets: dict[str, Stored] = {}
    for path, layer in named_layers(model):
        # A Linear names the projections in it, which a checkpoint has in its stead.
        prefix = path.rpartition(".")[0] if isinstance(layer, Linear) else path
        for name, place in layer.stored():
            targets[f"{prefix}.{name}" if prefix else name] = place
    return targets


def named_layers(node: object, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield every layer with weights below a node, and the attributes that lead to it.

    The attributes of our models are named as in a checkpoint. They are plain classes and not
    nn.Module, whose call costs 1 us and whose attributes 0.7 us each: 3 % of a small model's step.
    """
    if isinstance(node, Layer):
        yield path, node
        return
    children = enumerate(node) if isinstance(node, list) else getattr(node, "__dict__", {}).items()
    for name, child in children:
        yield from named_layers(child, f"{path}.{name}" if path else str(name))


def seal(model: Model) -> None:
    """Bring loaded weights into the form the kernels take, one by one to hold no model twice."""
    for _, layer in named_layers(model):
        layer.pack()


def _is_superfluous(name: str) -> bool:
    """Say whether a tensor without a place is an error.

    lm_head.weight has a place unless it is tied to the embedding, and then it is a copy of it.
    """
    return name != "lm_head.weight" and _NOT_WEIGHTS.fullmatch(name) is None


def _stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor, Path]]:
    """Yield name, tensor and file of all tensors, reading one at a time."""
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118 - a reader, not a dict
                    yield name, file.get_tensor(name), path
        except SafetensorError as error:
            raise ModelLoadError(
                f"{path} is corrupt or incomplete ({error}): download it again"
            ) from error
        except OSError as error:
            raise ModelLoadError(f"{path} cannot be read: {error}") from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_NAME
    single = folder / SINGLE_NAME
    if not index.is_file():
        if not single.is_file():
            raise ModelLoadError(
                f"{folder} has neither {SINGLE_NAME} nor {INDEX_NAME}: only safetensors weights "
                "are supported"
            )
        return [single]
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{index} is not a valid index: {error!r}") from error
    for name in names:
        if not (folder / name).is_file():
            raise ModelLoadError(f"{folder} lacks {name}, which {INDEX_NAME} lists")
    return [folder / name for name in names]
