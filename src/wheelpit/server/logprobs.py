"""Log-probabilities in OpenAI's two shapes: a list of objects, or parallel lists.

Tokens are shown by their text, or as "token_id:123" for clients that must tell apart tokens
whose texts are equal or incomplete.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from wheelpit.request import Logprob, PositionLogprobs
from wheelpit.text.tokenizer import Tokenizer

LOWEST = -9999.0
"""JSON has no -inf."""


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TokenLogprob]


class ChatLogprobs(msgspec.Struct):
    """What a chat choice has under "logprobs"."""

    content: list[ChatTokenLogprob]


class CompletionLogprobs(msgspec.Struct):
    """What a completion choice has under "logprobs"; the lists are parallel."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


@dataclass(frozen=True, slots=True)
class TokenNames:
    """How to show a token."""

    tokenizer: Tokenizer
    as_ids: bool

    def name(self, token_id: int, entry: Logprob | None) -> str:
        if self.as_ids:
            return f"token_id:{token_id}"
        if entry is not None and entry.decoded_token is not None:
            return entry.decoded_token
        return self.tokenizer.token_to_text(token_id)

    def bytes_of(self, token_id: int) -> list[int]:
        return list(self.tokenizer.token_bytes(token_id))


def chat_logprobs(
    token_ids: Sequence[int],
    positions: Sequence[PositionLogprobs | None],
    num_top: int,
    names: TokenNames,
) -> ChatLogprobs:
    """num_top: alternatives to show at each token; -1 shows all there are."""
    content: list[ChatTokenLogprob] = []
    for token_id, position in zip(token_ids, positions, strict=True):
        entry = (position or {}).get(token_id)
        content.append(
            ChatTokenLogprob(
                names.name(token_id, entry),
                LOWEST if entry is None else wire_logprob(entry.logprob),
                names.bytes_of(token_id),
                [
                    TokenLogprob(
                        names.name(other_id, other),
                        wire_logprob(other.logprob),
                        names.bytes_of(other_id),
                    )
                    for other_id, other in _top(position or {}, num_top)
                ],
            )
        )
    return ChatLogprobs(content)


class TextOffsets:
    """Counts the characters that tokens stand for; a character belongs to its last token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def before(self, token_id: int) -> int:
        """Return where this token begins, and go past it."""
        data = self._tokenizer.token_bytes(token_id)
        offset = self._num_chars
        has_pending = bool(self._decoder.getstate()[0])
        if has_pending and data and data[0] & 0xC0 != 0x80:
            # What was begun stays incomplete, and is shown as one U+FFFD before this token.
            offset += 1
        self._num_chars += len(self._decoder.decode(data))
        return offset


def completion_logprobs(
    token_ids: Sequence[int],
    positions: Sequence[PositionLogprobs | None],
    offsets: TextOffsets,
    names: TokenNames,
) -> CompletionLogprobs:
    """offsets: stands at the first of these tokens; is moved past the last."""
    described = CompletionLogprobs([], [], [], [])
    for token_id, position in zip(token_ids, positions, strict=True):
        entry = None if position is None else position.get(token_id)
        name = names.name(token_id, entry)
        described.text_offset.append(offsets.before(token_id))
        described.tokens.append(name)
        described.token_logprobs.append(None if entry is None else wire_logprob(entry.logprob))
        described.top_logprobs.append(
            None
            if position is None
            else {
                names.name(other_id, other): wire_logprob(other.logprob)
                for other_id, other in position.items()
            }
        )
    return described


def wire_logprob(value: float) -> float:
    """A number that JSON can carry."""
    return max(value, LOWEST)


def _top(position: PositionLogprobs, num_top: int) -> list[tuple[int, Logprob]]:
    """The most likely first; the sampled token is among them only if it is one of them."""
    entries = sorted(position.items(), key=lambda item: item[1].rank or 0)
    if num_top == -1:
        return entries
    return [(token_id, entry) for token_id, entry in entries if (entry.rank or 0) <= num_top][
        :num_top
    ]
