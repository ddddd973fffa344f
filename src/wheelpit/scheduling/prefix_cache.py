"""Find blocks that another sequence has computed already, by the tokens they follow from.

Keys and values at a position depend on every token up to it, so a full block is named by a chain:

    root(salt) ──> H(root, tokens of block 0) ──> H(that, tokens of block 1) ──> ...

Equal names mean equal tokens from the start on, and equal salts: sequences with different
`cache_salt` never meet (one tenant must not learn from timing what another one has asked). That
must hold against prompts made to collide, hence a cryptographic hash. A chain is computed once
per sequence and grows with it (`Sequence.block_names`); it survives preemption.

Only whole blocks that have been computed are shared, so shared blocks are never written. Two
sequences that compute the same block at the same time keep a copy each; the first one is found.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

from wheelpit.scheduling.block_pool import BlockPool
from wheelpit.scheduling.sequence import Sequence


class PrefixCache:
    """The names in a BlockPool, read and written in terms of sequences."""

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self._pool = pool
        self._block_size = block_size

    def find_prefix(self, sequence: Sequence, max_tokens: int) -> list[int]:
        """Return the longest run of cached blocks the sequence starts with; they are not touched.

        max_tokens: the most tokens they may cover.
        """
        num_blocks = min(max_tokens, sequence.num_tokens) // self._block_size
        self._extend_names(sequence, num_blocks)
        found: list[int] = []
        for name in sequence.block_names[:num_blocks]:
            block_id = self._pool.find(name)
            if block_id is None:
                break
            found.append(block_id)
        return found

    def register(self, sequence: Sequence, first: int, end: int) -> None:
        """Name blocks [first, end) of the sequence: full, and computed just now."""
        self._extend_names(sequence, end)
        for index in range(first, end):
            self._pool.set_name(sequence.block_ids[index], sequence.block_names[index])

    def forget(self, sequence: Sequence) -> None:
        """Let nobody find the blocks of a sequence whose contents are in doubt."""
        for block_id in sequence.block_ids:
            self._pool.unname(block_id)

    def reset(self) -> bool:
        """Forget everything. False, and nothing happens, while any block is in use."""
        return self._pool.unname_all()

    def _extend_names(self, sequence: Sequence, num_blocks: int) -> None:
        names, size = sequence.block_names, self._block_size
        for index in range(len(names), num_blocks):
            parent = names[-1] if names else root_name(sequence.cache_salt)
            names.append(block_name(parent, sequence.token_ids[index * size : (index + 1) * size]))


def root_name(cache_salt: str | None) -> bytes:
    """Name the empty prefix of all sequences with this salt."""
    if cache_salt is None:
        return bytes(32)
    return blake2b(cache_salt.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def block_name(parent: bytes, token_ids: list[int]) -> bytes:
    """Name the block that holds token_ids and follows the block named parent."""
    return blake2b(parent + array("q", token_ids).tobytes(), digest_size=32).digest()
