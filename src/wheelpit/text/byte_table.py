"""The bytes behind every token of a byte-level vocabulary.

Byte-level BPE writes each byte as one printable character (Radford et al. 2019, GPT-2): the
printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up. Undoing
that once per token at load time turns detokenizing into a dict lookup and a UTF-8 decoder.
"""

from __future__ import annotations

from collections.abc import Mapping


def byte_table(vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    """Map each token id to its bytes, as the `tokenizers` ByteLevel decoder would.

    A token with a character outside the byte alphabet (an added token such as "<|end of text|>"
    or one in another script) stands for its own UTF-8.
    """
    to_latin1 = _translation()
    table = {}
    for token, token_id in vocabulary.items():
        try:
            table[token_id] = token.translate(to_latin1).encode("latin-1")
        except UnicodeEncodeError:
            table[token_id] = token.encode("utf-8", "replace")
    return table


def _translation() -> dict[int, int]:
    """Map the alphabet to code points 0-255, and Latin-1 characters outside of it beyond them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    mapping = {byte: byte for byte in printable}
    mapping.update(dict.fromkeys(others, 0xFFFF))
    mapping.update({0x100 + index: byte for index, byte in enumerate(others)})
    return mapping
