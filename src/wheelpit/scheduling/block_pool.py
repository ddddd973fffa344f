"""The blocks of the KV cache as bookkeeping: who uses which, and what the unused still hold.

Written only by Scheduler (directly and through PrefixCache). The memory behind an id belongs to
`runner/kv_cache.py`. A block is in exactly one of three places:

                    allocate                    free, unnamed
       fresh ─────────────────────> used ─────────────────────> fresh
                                    │  ^
                       free, named  │  │  touch (a prefix hit)
                                    v  │
                                   cached ──allocate, when no block is fresh──> used
                                            (evicts: the name is forgotten)

A block's *name* is the hash of all tokens up to its end (`prefix_cache.py`). It is given once the
block is full and computed, so whoever finds a block by name may read it. Several sequences can
use one block: it has a reference count and falls free with its last user. "Free" means fresh or
cached: cached blocks are available at any time, least recently used first.

Every operation is O(1) for each block it names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """A fixed number of blocks with reference counts, names and an LRU order of the unused."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        # A stack, so that blocks that were just freed (warm in the CPU's caches) are used next;
        # it starts descending and is filled backwards, so that ids come out ascending.
        self._fresh = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._num_users = [0] * num_blocks
        self._names: list[bytes | None] = [None] * num_blocks
        self._named: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can hand out: fresh and cached ones."""
        return len(self._fresh) + len(self._cached)

    @property
    def usage(self) -> float:
        """Share of the blocks that sequences use, in [0, 1]; cached blocks are not in use."""
        return 1.0 - self.num_free / self.num_blocks

    def num_users(self, block_id: int) -> int:
        return self._num_users[block_id]

    def allocate(self, count: int) -> list[int]:
        """Hand out blocks to one user each; evicts cached ones once no block is fresh.

        The caller has checked `num_free`.
        """
        assert 0 <= count <= self.num_free, f"{count} blocks wanted, {self.num_free} are free"
        fresh = self._fresh
        blocks = [fresh.pop() for _ in range(min(count, len(fresh)))]
        while len(blocks) < count:
            block_id, _ = self._cached.popitem(last=False)
            self._forget(block_id)
            blocks.append(block_id)
        for block_id in blocks:
            self._num_users[block_id] = 1
        return blocks

    def touch(self, block_ids: Iterable[int]) -> None:
        """Add a user to blocks found by name, whether used or cached."""
        for block_id in block_ids:
            if self._num_users[block_id] == 0:
                del self._cached[block_id]
            self._num_users[block_id] += 1

    def free(self, block_ids: Sequence[int]) -> None:
        """Take one user from each block of a block table.

        Goes from the table's end, so that of one sequence the last blocks are evicted first: a
        shorter prefix is shared by more sequences than a longer one.
        """
        num_users = self._num_users
        for block_id in reversed(block_ids):
            assert num_users[block_id] > 0, f"block {block_id} is freed but has no user"
            num_users[block_id] -= 1
            if num_users[block_id] == 0:
                if self._names[block_id] is None:
                    self._fresh.append(block_id)
                else:
                    self._cached[block_id] = None

    def find(self, name: bytes) -> int | None:
        """Return the block of this name, used or cached."""
        return self._named.get(name)

    def name_of(self, block_id: int) -> bytes | None:
        return self._names[block_id]

    def set_name(self, block_id: int, name: bytes) -> None:
        """Name a used block; keeps the first block of that name if there is one already.

        The other copy stays unnamed and is fresh again after its last user.
        """
        assert self._num_users[block_id] > 0, f"block {block_id} is named but has no user"
        assert self._names[block_id] in (None, name), f"block {block_id} has another name"
        if self._named.setdefault(name, block_id) == block_id:
            self._names[block_id] = name

    def unname(self, block_id: int) -> None:
        """Forget the name of a used block, so that nobody finds it any more."""
        assert self._num_users[block_id] > 0, f"block {block_id} is unnamed but has no user"
        self._forget(block_id)

    def unname_all(self) -> bool:
        """Forget every name. False, and nothing happens, while any block is in use."""
        if self.num_free < self.num_blocks:
            return False
        self._fresh = list(range(self.num_blocks - 1, -1, -1))
        self._cached.clear()
        self._named.clear()
        self._names = [None] * self.num_blocks
        return True

    def _forget(self, block_id: int) -> None:
        name = self._names[block_id]
        if name is not None:
            self._names[block_id] = None
            del self._named[name]

    def check(self) -> None:
        """Assert all of the above; O(num_blocks), for tests."""
        fresh, cached = set(self._fresh), set(self._cached)
        used = {block for block, count in enumerate(self._num_users) if count > 0}
        assert len(fresh) == len(self._fresh), "a block is fresh twice"
        assert fresh | cached | used == set(range(self.num_blocks)), "a block is lost"
        assert len(fresh) + len(cached) + len(used) == self.num_blocks, "a block is in two places"
        assert min(self._num_users, default=0) >= 0, "a reference count is negative"
        assert all(self._names[block] is None for block in fresh), "a fresh block has a name"
        assert all(self._names[block] is not None for block in cached), "a cached block has none"
        named = {name: block for block, name in enumerate(self._names) if name is not None}
        assert named == self._named, "names and blocks disagree"
