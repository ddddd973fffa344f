"""Read the files that describe a tokenizer in a model folder; no vocabulary, only settings.

Called by `text/tokenizer.py`. Everything wrong with a file is a ModelLoadError that names it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wheelpit.errors import ModelLoadError

log = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
DEFAULT_TEMPLATE = "default"
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSettings:
    """What tokenizer_config.json and its neighbours say."""

    named_tokens: Mapping[str, str] = field(default_factory=dict)
    """"eos_token" -> "<|im_end|>" and so on: only those that are set."""
    added_tokens: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Id -> the fields of an AddedToken, for tokens that tokenizer.json may lack."""
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    """Name -> jinja source; "default" is the one used unless tools ask for another."""


def read_settings(folder: Path) -> TokenizerSettings:
    """Merge special_tokens_map.json, tokenizer_config.json and the template files."""
    config = read_json(folder / CONFIG_FILE)
    token_map = read_json(folder / "special_tokens_map.json")
    return TokenizerSettings(
        named_tokens=_named_tokens({**token_map, **{k: v for k, v in config.items() if v}}),
        added_tokens=_added_tokens(config, folder / CONFIG_FILE),
        add_bos_token=config.get("add_bos_token"),
        add_eos_token=config.get("add_eos_token"),
        chat_templates=_chat_templates(folder, config),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} if there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"cannot use {path}: it holds a {type(value).__name__}, not an object")
    return value


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in NAMED_TOKENS:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str) and token:
            found[name] = token
    return found


def _added_tokens(config: Mapping[str, Any], path: Path) -> dict[int, Mapping[str, Any]]:
    entries = config.get("added_tokens_decoder") or {}
    try:
        return {int(token_id): dict(entry) for token_id, entry in entries.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelLoadError(f"cannot use added_tokens_decoder of {path}: {error}") from error


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Collect the templates; a file of its own wins over the one inside tokenizer_config.json."""
    templates = _templates_of(config.get("chat_template"), folder / CONFIG_FILE)
    processor = folder / "chat_template.json"
    templates.update(_templates_of(read_json(processor).get("chat_template"), processor))
    paths = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    paths[DEFAULT_TEMPLATE] = folder / "chat_template.jinja"
    for name, path in paths.items():
        try:
            templates[name] = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"cannot read {path}: {error}") from error
    return templates


def _templates_of(value: object, path: Path) -> dict[str, str]:
    if not value:
        return {}
    if isinstance(value, str):
        return {DEFAULT_TEMPLATE: value}
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in value}  # type: ignore[attr-defined]  # any shape may come from a file
    except (TypeError, KeyError) as error:
        raise ModelLoadError(
            f"cannot use chat_template of {path}: it is neither a text nor a list of "
            '{"name", "template"}'
        ) from error
