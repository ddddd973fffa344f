"""IncrementalDetokenizer: token ids in, text out, as the ids come.

One per sequence, written only by whoever delivers its outputs. What it gives out is never taken
back: a character whose bytes are spread over tokens comes out when its last byte has come, so no
U+FFFD shows up mid-stream unless the bytes can no longer become a character.

Two ways, chosen by the tokenizer's decoder:

- byte-level BPE (GPT-2, Llama 3, Qwen, the built-in model): a dict from id to bytes and an
  incremental UTF-8 decoder. The pieces add up to exactly `Tokenizer.decode` of all ids.
- anything else (SentencePiece with byte fallback, WordPiece, ...): decode a short window of ids
  again with each new one, and give out what was added. The pieces add up to `decode` of all ids
  where those are valid UTF-8; where byte tokens are not, `decode` turns the valid characters of
  the same run into U+FFFD as well, while here they are long out.
"""

from __future__ import annotations

import logging
from codecs import utf_8_decode
from collections.abc import Mapping, Sequence

from wheelpit.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

PRIME_TOKENS = 6
"""Prompt tokens that set the scene: spaces and byte runs depend on what stands before."""

MAX_PRIME_TOKENS = 16
"""How far to look back for a start that is not in the middle of a character."""

MAX_PENDING_TOKENS = 4
"""UTF-8 needs at most four bytes a character: longer than that and it is just not UTF-8."""


class IncrementalDetokenizer:
    """Turn the ids of one sequence into text. Written only by its owner."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int] = (),
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> None:
        """Start behind the prompt; only the prompt's last few ids are looked at."""
        self._way: _ByteWay | _WindowWay
        if tokenizer.is_byte_level:
            self._way = _ByteWay(tokenizer.byte_table(skip_special_tokens))
        else:
            joined = not skip_special_tokens and not spaces_between_special_tokens
            self._way = _WindowWay(
                tokenizer, skip_special_tokens, tokenizer.added_tokens if joined else {}
            )
        try:
            self._way.prime(prompt_token_ids[-MAX_PRIME_TOKENS:])
        except Exception as error:
            self._reset(error)

    def append(self, token_ids: Sequence[int]) -> str:
        """Return the text that these ids complete, often the empty string.

        Never raises: ids that cannot be decoded have no text, are logged and reset the stream.
        """
        try:
            return self._way.append(token_ids)
        except Exception as error:  # one request's bad ids must not end the delivery of the others
            self._reset(error)
            return ""

    def finish(self) -> str:
        """Return what is still pending: an unfinished character, as U+FFFD."""
        try:
            return self._way.finish()
        except Exception as error:
            self._reset(error)
            return ""

    def _reset(self, error: Exception) -> None:
        log.warning("detokenizing failed, going on without these ids: %s", error)
        self._way.reset()


class _ByteWay:
    """Byte-level vocabularies: a table of bytes, then UTF-8."""

    __slots__ = ("_pending", "_table")

    def __init__(self, table: Mapping[int, bytes]) -> None:
        self._table = table
        self._pending = b""

    def prime(self, token_ids: Sequence[int]) -> None:
        self.append(token_ids)

    def append(self, token_ids: Sequence[int]) -> str:
        table = self._table
        data = self._pending
        for token_id in token_ids:
            data += table.get(token_id, b"")
        text, used = utf_8_decode(data, "replace", False)
        self._pending = data[used:]
        return text

    def finish(self) -> str:
        text, _ = utf_8_decode(self._pending, "replace", True)
        self._pending = b""
        return text

    def reset(self) -> None:
        self._pending = b""


class _WindowWay:
    """Any decoder: the ids since the last but one piece are decoded again with each new id.

    `_window` begins where the last piece but one ended, so that the decoder sees what stands
    before; `_shown` is the text of the window that is out, `_num_shown` the ids behind it. Ids
    without text (skipped tokens) count as shown; a long run of them is forgotten.
    """

    __slots__ = ("_joined", "_num_shown", "_shown", "_skip", "_tokenizer", "_was_added", "_window")

    def __init__(self, tokenizer: Tokenizer, skip: bool, joined: Mapping[int, str]) -> None:
        """joined: added tokens whose text stands alone, next to one another without a space."""
        self._tokenizer = tokenizer
        self._skip = skip
        self._joined = joined
        self.reset()

    def reset(self) -> None:
        self._window: list[int] = []
        self._num_shown = 0
        self._shown = ""
        self._was_added = False

    def prime(self, token_ids: Sequence[int]) -> None:
        """Take the prompt's end as shown, from a token that does not begin mid-character."""
        start = max(0, len(token_ids) - PRIME_TOKENS)
        text = self._decode(list(token_ids[start:]))
        while start > 0 and text.startswith("\ufffd"):
            start -= 1
            text = self._decode(list(token_ids[start:]))
        self._window = list(token_ids[start:])
        self._num_shown = len(self._window)
        self._shown = text

    def append(self, token_ids: Sequence[int]) -> str:
        if len(token_ids) == 1:
            return self._append(token_ids[0])
        return "".join(map(self._append, token_ids))

    def _append(self, token_id: int) -> str:
        if self._joined and token_id in self._joined:
            return self._append_added(token_id)
        self._was_added = False
        self._window.append(token_id)
        text = self._decode(self._window)
        num_pending = len(self._window) - self._num_shown
        if text.endswith("\ufffd") and num_pending < MAX_PENDING_TOKENS:
            return ""
        return self._show(text)

    def _append_added(self, token_id: int) -> str:
        """Add a token of `_joined`: the first of a run is decoded, the others follow it as is."""
        if self._was_added:
            self._window = [token_id]
            self._num_shown = 1
            self._shown = self._decode(self._window)
            return self._joined[token_id]
        self._was_added = True
        self._window.append(token_id)
        return self._show(self._decode(self._window))

    def _show(self, text: str) -> str:
        """Give out what `text`, the whole window's, has more than is out; move the window on."""
        pending = self._window[self._num_shown :]
        if text.startswith(self._shown):
            piece = text[len(self._shown) :]
        else:
            piece = self._decode(pending)
        if not piece:
            self._num_shown = len(self._window)
            if self._num_shown > MAX_PRIME_TOKENS:
                self._window.pop()
                self._num_shown -= 1
            return ""
        self._window = pending
        self._num_shown = len(pending)
        if len(pending) == 1:
            self._shown = self._tokenizer.decode_alone(pending[0], self._skip)
        else:
            self._shown = self._decode(pending)
        return piece

    def finish(self) -> str:
        if len(self._window) == self._num_shown:
            return ""
        return self._show(self._decode(self._window))

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode_window(token_ids, self._skip)
