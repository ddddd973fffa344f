"""Tokenizer: the front end's view of a model's tokenizer.json and its neighbours.

Built once per model by the engine's front end and `LLM`, shared by all requests; immutable after
`from_folder`. Has the few methods of a Hugging Face tokenizer that callers of
`engine.get_tokenizer()` use.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders

from wheelpit.errors import ModelLoadError, ValidationError
from wheelpit.text.byte_table import byte_table
from wheelpit.text.chat_template import ChatTemplate
from wheelpit.text.tokenizer_files import (
    DEFAULT_TEMPLATE,
    TOKENIZER_FILE,
    TokenizerSettings,
    read_settings,
)

log = logging.getLogger(__name__)

INLINE_CHARS = 2000
"""Texts up to this long are encoded on the event loop: see `encode_async`."""

MAX_THREADS = 4


class Tokenizer:
    """Encode and decode text. Immutable but for a cache; safe to share between threads."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: TokenizerSettings | None = None,
        name: str = "the tokenizer",
    ) -> None:
        """Take over `backend` (its truncation and padding are switched off).

        name: says in error messages where the tokenizer came from.
        """
        self.settings = settings or TokenizerSettings()
        self.name = name
        self._backend = backend
        backend.no_truncation()
        backend.no_padding()
        _add_missing_tokens(backend, self.settings)
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self._num_tokens = len(vocabulary)
        self.max_token_id = max(vocabulary.values(), default=0)
        self.added_tokens: Mapping[int, str] = {
            token_id: token.content
            for token_id, token in backend.get_added_tokens_decoder().items()
        }
        self.special_ids = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special
        )
        self.is_byte_level = isinstance(backend.decoder, decoders.ByteLevel)
        self._texts_alone: dict[tuple[int, bool], str] = {}
        self._bytes_of: dict[int, bytes] = {}
        self._visible_bytes_of: dict[int, bytes] = {}
        if self.is_byte_level:
            self._bytes_of = byte_table(vocabulary)
            self._visible_bytes_of = {
                token_id: data
                for token_id, data in self._bytes_of.items()
                if token_id not in self.special_ids
            }
        self._prefix_ids, self._drop_first = self._bos_rule()
        self._suffix_ids, self._drop_last = self._eos_rule()

    @classmethod
    def from_folder(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Load from a Hugging Face folder; ModelLoadError names the file at fault."""
        folder = Path(path)
        file = folder / TOKENIZER_FILE
        if not file.is_file():
            raise ModelLoadError(
                f"{file} does not exist: the folder needs a fast tokenizer "
                "(tokenizer.json); save one there or pass --tokenizer with a folder that has one"
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the Rust side raises bare Exception for everything
            raise ModelLoadError(f"cannot read {file}: {error}") from error
        return cls(backend, read_settings(folder), name=str(folder))

    # --- text to ids

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text; ValidationError for what is not Unicode text."""
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except Exception as error:  # the Rust side raises bare Exception and TypeError
            raise _not_text(text, error) from error
        if not add_special_tokens:
            return ids
        if self._drop_first or self._drop_last:
            ids = ids[self._drop_first : len(ids) - self._drop_last]
        if self._prefix_ids or self._suffix_ids:
            ids = [*self._prefix_ids, *ids, *self._suffix_ids]
        return ids

    async def encode_async(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Encode without holding up the event loop for more than about half a millisecond.

        Encoding costs 0.26 us a character and releases the GIL; a trip through the pool costs
        50-80 us and two context switches (this project's CONVENTIONS.md with the built-in
        vocabulary, best of 200, on one core of a busy two-core Xeon VM). So texts up to
        INLINE_CHARS are encoded inline, longer ones in one of at most MAX_THREADS threads.
        """
        if not isinstance(text, str) or len(text) <= INLINE_CHARS:
            return self.encode(text, add_special_tokens)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.encode, text, add_special_tokens)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        num_threads = min(MAX_THREADS, os.cpu_count() or 1)
        return ThreadPoolExecutor(num_threads, thread_name_prefix="wheelpit-tokenizer")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **options: Any,
    ) -> str | list[int]:
        """Render a conversation with the folder's template; return its ids or its text.

        options: continue_final_message, tools, and variables for the template.
        """
        text = self.chat_template_for(options.get("tools")).render(
            messages, add_generation_prompt=add_generation_prompt, **options
        )
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def chat_template_for(self, tools: object = None) -> ChatTemplate:
        """Return the template for a conversation; "tool_use" with tools, where there is one."""
        name = "tool_use" if tools and "tool_use" in self._templates else DEFAULT_TEMPLATE
        template = self._templates.get(name)
        if template is None:
            raise ValidationError(
                f"{self.name} has no chat template (neither in tokenizer_config.json nor as "
                "chat_template.jinja), so it cannot answer messages: start the server with "
                "--chat-template FILE, or send a plain prompt to /v1/completions"
            )
        return template

    @cached_property
    def _templates(self) -> dict[str, ChatTemplate]:
        return {
            name: ChatTemplate(source, self.settings.named_tokens)
            for name, source in self.settings.chat_templates.items()
        }

    @property
    def chat_template(self) -> str | None:
        """The jinja source of the default template."""
        return self.settings.chat_templates.get(DEFAULT_TEMPLATE)

    # --- ids to text

    def decode(
        self,
        token_ids: int | Sequence[int],
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Return the text of token ids. Ids outside the vocabulary have no text.

        spaces_between_special_tokens: False keeps a decoder that joins tokens with spaces from
        doing so between two added tokens; byte-level decoders never do.
        """
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        try:
            if skip_special_tokens or spaces_between_special_tokens or self.is_byte_level:
                return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
            return "".join(map(self._decode_run, _split_runs(ids, self.added_tokens)))
        except (OverflowError, TypeError) as error:
            raise ValidationError(
                f"token ids must be non-negative integers: {error}", parameter="tokens", value=ids
            ) from error

    def decode_window(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        """Decode without checks and copies: for the detokenizer, several times a token."""
        return self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def decode_alone(self, token_id: int, skip_special_tokens: bool) -> str:
        """Return the same as `decode_window` for one id, remembered for all requests."""
        key = (token_id, skip_special_tokens)
        text = self._texts_alone.get(key)
        if text is None:
            text = self._texts_alone[key] = self.decode_window([token_id], skip_special_tokens)
        return text

    def _decode_run(self, run: list[int]) -> str:
        if run[0] in self.added_tokens:
            return "".join(self.added_tokens[token_id] for token_id in run)
        return str(self._backend.decode(run, skip_special_tokens=False))

    def token_to_text(self, token_id: int) -> str:
        """Return the text of one token on its own; a part of a character is shown as U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes one token stands for, with its leading space; b"" if unknown."""
        if self.is_byte_level:
            return self._bytes_of.get(token_id, b"")
        token = self._entry(token_id)
        if token is None:
            return b""
        if token_id in self.added_tokens:
            return token.encode()
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        if "\u2581" in token:
            return token.replace("\u2581", " ").encode()
        return self.decode([token_id], skip_special_tokens=False).encode("utf-8", "replace")

    def byte_table(self, skip_special_tokens: bool) -> Mapping[int, bytes]:
        """Return id -> bytes; only for `is_byte_level`. Skipped tokens are not in it."""
        assert self.is_byte_level, f"{self.name} is not byte-level"
        return self._visible_bytes_of if skip_special_tokens else self._bytes_of

    # --- the vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._num_tokens

    def __len__(self) -> int:
        return self._num_tokens

    def get_vocab(self) -> dict[str, int]:
        """Return token -> id, added tokens included."""
        return self._backend.get_vocab(with_added_tokens=True)

    def convert_ids_to_tokens(self, token_ids: int | Sequence[int]) -> Any:
        """Return the raw vocabulary entry of an id (None if unknown), or a list of them."""
        if isinstance(token_ids, int):
            return self._entry(token_ids)
        return [self._entry(token_id) for token_id in token_ids]

    def _entry(self, token_id: int) -> str | None:
        is_in_range = 0 <= token_id <= self.max_token_id
        return self._backend.id_to_token(token_id) if is_in_range else None

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a raw vocabulary entry (None if unknown), or a list of them."""
        if isinstance(tokens, str):
            return self._backend.token_to_id(tokens)
        return [self._backend.token_to_id(token) for token in tokens]

    @property
    def bos_token(self) -> str | None:
        return self.settings.named_tokens.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.settings.named_tokens.get("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        return self._named_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._named_id("eos_token")

    def _named_id(self, name: str) -> int | None:
        token = self.settings.named_tokens.get(name)
        return None if token is None else self._backend.token_to_id(token)

    # --- add_bos_token and add_eos_token, against what tokenizer.json does by itself

    def _bos_rule(self) -> tuple[list[int], int]:
        """Return the ids to put in front and how many to drop there."""
        bos, wanted = self.bos_token_id, self.settings.add_bos_token
        if bos is None or wanted is None:
            return [], 0
        does_add = self._backend.encode("", add_special_tokens=True).ids[:1] == [bos]
        return ([bos] if wanted and not does_add else []), int(does_add and not wanted)

    def _eos_rule(self) -> tuple[list[int], int]:
        """Return the ids to put at the end and how many to drop there."""
        eos, wanted = self.eos_token_id, self.settings.add_eos_token
        if eos is None or wanted is None:
            return [], 0
        does_add = self._backend.encode("a", add_special_tokens=True).ids[-1:] == [eos]
        return ([eos] if wanted and not does_add else []), int(does_add and not wanted)


def _add_missing_tokens(backend: tokenizers.Tokenizer, settings: TokenizerSettings) -> None:
    """Add the tokens that only tokenizer_config.json knows, and mark the named ones special."""
    known = backend.get_added_tokens_decoder()
    for token_id, entry in sorted(settings.added_tokens.items()):
        if token_id not in known and isinstance(entry.get("content"), str):
            fields = {key: bool(entry[key]) for key in _TOKEN_FLAGS if key in entry}
            backend.add_tokens([AddedToken(entry["content"], **fields)])
    known_texts = {token.content for token in known.values() if token.special}
    for name, token in settings.named_tokens.items():
        if backend.token_to_id(token) is None:
            log.warning("%s %r is not in the vocabulary and is ignored", name, token)
        elif token not in known_texts:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])


_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def _split_runs(ids: list[int], added: Mapping[int, str]) -> list[list[int]]:
    """Cut ids into runs of added tokens and runs of others."""
    runs: list[list[int]] = []
    for token_id in ids:
        if runs and (token_id in added) == (runs[-1][-1] in added):
            runs[-1].append(token_id)
        else:
            runs.append([token_id])
    return runs


def _not_text(text: object, error: Exception) -> ValidationError:
    if not isinstance(text, str):
        return ValidationError(f"text must be a string, got {type(text).__name__}")
    place = next((i for i, char in enumerate(text) if "\ud800" <= char <= "\udfff"), None)
    if place is None:
        return ValidationError(f"the text cannot be tokenized: {error}")
    return ValidationError(
        f"the text is not valid Unicode: character {place} is the lone surrogate "
        f"U+{ord(text[place]):04X}"
    )
