"""One tokenizer of each family, and a model folder with a tokenizer in it."""

import json
from pathlib import Path

import pytest

from tests.text.small_tokenizers import (
    CHAT_TEMPLATE,
    byte_level_backend,
    sentencepiece_backend,
    wordpiece_backend,
)
from wheelpit.text.tokenizer import Tokenizer
from wheelpit.text.tokenizer_files import TokenizerSettings


@pytest.fixture(scope="session")
def byte_level() -> Tokenizer:
    settings = TokenizerSettings(
        named_tokens={"eos_token": "<|im_end|>"}, chat_templates={"default": CHAT_TEMPLATE}
    )
    return Tokenizer(byte_level_backend(), settings)


@pytest.fixture(scope="session")
def sentencepiece() -> Tokenizer:
    return Tokenizer(
        sentencepiece_backend(),
        TokenizerSettings(named_tokens={"bos_token": "<s>", "eos_token": "</s>"}),
    )


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    return Tokenizer(wordpiece_backend())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a byte-level tokenizer and an old-style template."""
    byte_level_backend().save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "bos_token": None, "chat_template": CHAT_TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path
