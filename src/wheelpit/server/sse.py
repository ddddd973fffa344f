"""Server-sent events, fast: the constant parts of a chunk are built once per request.

A chunk of plain text costs one string escape and one concatenation; nothing is validated or
encoded as a whole per token. What the engine merged while the client was slow is one chunk.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

DONE = b"data: [DONE]\n\n"

encode = msgspec.json.Encoder().encode


class ChunkWriter:
    """Writes the chunks of one streamed answer."""

    def __init__(self, head: Mapping[str, object], text_open: bytes, text_close: bytes) -> None:
        """head: the fields before "choices". text_open, text_close: what surrounds the text."""
        self._head = b"data: " + encode(head)[:-1] + b',"choices":['
        self._text_open = text_open
        self._text_close = text_close
        self._plain_close = text_close + b',"logprobs":null,"finish_reason":null}]}\n\n'
        self._opens: dict[int, bytes] = {}

    def plain(self, index: int, text: str) -> bytes:
        """A chunk with nothing but text: the hot path."""
        start = self._opens.get(index)
        if start is None:
            start = self._opens[index] = self._head + b'{"index":%d,' % index + self._text_open
        return start + encode(text) + self._plain_close

    def chunk(
        self,
        index: int,
        text: str,
        choice: Mapping[str, object],
        top: Mapping[str, object],
        logprobs: object = None,
        finish_reason: str | None = None,
    ) -> bytes:
        """A chunk with more: `choice` and `top` add fields to the choice and to the chunk."""
        more = {"logprobs": logprobs, "finish_reason": finish_reason, **choice}
        body = (
            b'{"index":%d,' % index,
            self._text_open,
            encode(text),
            self._text_close,
            b",",
            encode(more)[1:],
        )
        return self._finish(b"".join(body), top)

    def raw(self, choice: Mapping[str, object], top: Mapping[str, object]) -> bytes:
        """A chunk whose choice is given whole."""
        return self._finish(encode(choice), top)

    def usage(self, usage: object) -> bytes:
        """The chunk without choices that ends a stream."""
        return self._finish(b"", {"usage": usage})

    def _finish(self, choice: bytes, top: Mapping[str, object]) -> bytes:
        end = b"," + encode(top)[1:] if top else b"}"
        return self._head + choice + b"]" + end + b"\n\n"
