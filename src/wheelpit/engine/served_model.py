"""What the front end knows of the model: its folder, limits, tokenizer and defaults. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wheelpit.engine.arg_utils import EngineArgs
from wheelpit.errors import ConfigError, ModelLoadError
from wheelpit.models.config import ModelConfig
from wheelpit.models.source import resolve_model
from wheelpit.text.chat_template import ChatTemplate
from wheelpit.text.tokenizer import Tokenizer

SAMPLING_DEFAULTS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}
"""generation_config.json's names for the sampling defaults it may set, and ours."""


@dataclass(frozen=True)
class ServedModel:
    """One model as requests see it."""

    folder: Path
    served_model_names: tuple[str, ...]
    hf: ModelConfig
    tokenizer: Tokenizer | None
    max_model_len: int
    max_logprobs: int
    chat_template_override: ChatTemplate | None
    default_sampling_params: dict[str, Any]
    """Keyword arguments of SamplingParams that the model's authors recommend."""

    @property
    def name(self) -> str:
        return self.served_model_names[0]

    @property
    def vocab_size(self) -> int:
        return self.hf.vocab_size

    @property
    def max_token_id(self) -> int:
        """The highest id a prompt may contain: it must have a row in the embedding."""
        return self.hf.vocab_size - 1

    @cached_property
    def max_token_chars(self) -> int:
        """The most characters one token can stand for, to refuse hopeless texts unread."""
        if self.tokenizer is None:
            return 1
        return max((len(token) for token in self.tokenizer.get_vocab()), default=1)

    @property
    def primary_eos_token_id(self) -> int | None:
        """The tokenizer's EOS; stopping at it has no stop_reason."""
        if self.tokenizer is not None and self.tokenizer.eos_token_id is not None:
            return self.tokenizer.eos_token_id
        return self.hf.eos_token_ids[0] if self.hf.eos_token_ids else None

    @cached_property
    def eos_token_ids(self) -> list[int]:
        """Every token that ends a sequence unless ignore_eos, the primary one first."""
        primary = self.primary_eos_token_id
        extra = [token_id for token_id in self.hf.eos_token_ids if token_id != primary]
        return extra if primary is None else [primary, *extra]

    def chat_template(self, tools: object = None) -> ChatTemplate:
        """The template for chat requests. ValidationError if there is none."""
        if self.chat_template_override is not None:
            return self.chat_template_override
        if self.tokenizer is None:
            raise ConfigError("chat needs a tokenizer, and this engine was built without one")
        return self.tokenizer.chat_template_for(tools)


def load_model_config(args: EngineArgs) -> tuple[Path, ModelConfig]:
    """Find (or download) the model's folder and read its config.json."""
    folder = resolve_model(
        args.model,
        revision=args.revision,
        download_dir=args.download_dir,
        token=args.hf_token,
    )
    return folder, ModelConfig.from_folder(folder)


def load_served_model(
    args: EngineArgs, folder: Path, hf: ModelConfig, max_model_len: int
) -> ServedModel:
    """Read the tokenizer and the defaults. Raises ModelLoadError or ConfigError by name."""
    tokenizer = None
    if not args.skip_tokenizer_init:
        tokenizer_folder = folder
        if args.tokenizer is not None:
            tokenizer_folder = resolve_model(
                args.tokenizer, download_dir=args.download_dir, token=args.hf_token
            )
        tokenizer = Tokenizer.from_folder(tokenizer_folder)
    return ServedModel(
        folder=folder,
        served_model_names=args.served_model_names,
        hf=hf,
        tokenizer=tokenizer,
        max_model_len=max_model_len,
        max_logprobs=args.max_logprobs,
        chat_template_override=_load_template(args.chat_template, tokenizer),
        default_sampling_params=_sampling_defaults(args, folder),
    )


def _load_template(given: str | None, tokenizer: Tokenizer | None) -> ChatTemplate | None:
    if given is None:
        return None
    special_tokens = {}
    if tokenizer is not None:
        special_tokens = {
            name: token
            for name in ("bos_token", "eos_token")
            if (token := getattr(tokenizer, name)) is not None
        }
    if "{" in given or "\n" in given:
        return ChatTemplate(given, special_tokens)
    try:
        source = Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"chat_template {given!r} cannot be read: {error.strerror}") from error
    return ChatTemplate(source, special_tokens)


def _sampling_defaults(args: EngineArgs, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    path = folder / "generation_config.json"
    if args.generation_config == "auto" and path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelLoadError(f"{path} is not valid JSON: {error}") from error
        if found.get("do_sample") is False:
            # Greedy by its authors' word: their temperature and top_p then mean nothing.
            found = {
                name: value
                for name, value in found.items()
                if name in ("repetition_penalty", "max_new_tokens")
            }
            found["temperature"] = 0.0
    found = {**found, **args.override_generation_config}
    return {
        ours: found[theirs]
        for theirs, ours in SAMPLING_DEFAULTS.items()
        if found.get(theirs) is not None
    }
