"""BlockPool and PrefixCache against a model so simple that it is obviously right.

The model keeps what each block holds as the whole list of tokens up to its end, and the free
blocks as a plain list in the order of eviction. The machine finds, allocates, registers, forgets,
frees and resets at random and demands the same answers.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scheduling.checked_model import make_sequence
from wheelpit.scheduling.block_pool import BlockPool
from wheelpit.scheduling.prefix_cache import PrefixCache
from wheelpit.scheduling.sequence import Sequence

Content = tuple[str | None, tuple[int, ...]]


class CacheMachine(RuleBasedStateMachine):
    @initialize(num_blocks=st.integers(1, 12), block_size=st.sampled_from([1, 2, 4]))
    def build(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.pool = BlockPool(num_blocks)
        self.cache = PrefixCache(self.pool, block_size)
        self.live: list[Sequence] = []
        self.num_registered: dict[Sequence, int] = {}
        self.users = [0] * num_blocks
        self.holds: dict[int, Content] = {}
        self.evictable: list[int] = []  # free and held, least recently used first

    def content(self, sequence: Sequence, index: int) -> Content:
        tokens = tuple(sequence.token_ids[: (index + 1) * self.block_size])
        return sequence.cache_salt, tokens

    def block_holding(self, content: Content) -> int | None:
        return next((block for block, held in self.holds.items() if held == content), None)

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=20),
        salt=st.sampled_from([None, None, "s"]),
    )
    def start(self, tokens: list[int], salt: str | None) -> None:
        sequence = make_sequence("s", tokens, cache_salt=salt)
        expected: list[int] = []
        for index in range((len(tokens) - 1) // self.block_size):
            block_id = self.block_holding(self.content(sequence, index))
            if block_id is None:
                break
            expected.append(block_id)
        found = self.cache.find_prefix(sequence, len(tokens) - 1)
        assert found == expected
        num_new = -(-len(tokens) // self.block_size) - len(found)
        num_revived = sum(self.users[block_id] == 0 for block_id in found)
        if num_new + num_revived > self.pool.num_free:
            return
        self.pool.touch(found)
        for block_id in found:
            self.users[block_id] += 1
            if self.users[block_id] == 1:
                self.evictable.remove(block_id)
        sequence.block_ids = found + self.allocate(num_new)
        self.live.append(sequence)
        self.num_registered[sequence] = len(found)

    def allocate(self, count: int) -> list[int]:
        fresh = {
            block
            for block in range(self.num_blocks)
            if self.users[block] == 0 and block not in self.holds
        }
        blocks = self.pool.allocate(count)
        assert len(set(blocks)) == count
        num_fresh = min(count, len(fresh))
        assert set(blocks[:num_fresh]) <= fresh
        evicted = blocks[num_fresh:]
        assert evicted == self.evictable[: len(evicted)]
        del self.evictable[: len(evicted)]
        for block_id in evicted:
            del self.holds[block_id]
        for block_id in blocks:
            self.users[block_id] = 1
        return blocks

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.live))
        first = self.num_registered[sequence]
        end = data.draw(st.integers(first, sequence.num_tokens // self.block_size))
        self.cache.register(sequence, first, end)
        self.num_registered[sequence] = end
        for index in range(first, end):
            content = self.content(sequence, index)
            if self.block_holding(content) is None:
                self.holds[sequence.block_ids[index]] = content

    @precondition(lambda self: self.live)
    @rule(data=st.data(), forget=st.sampled_from([False, False, True]))
    def end(self, data: st.DataObject, forget: bool) -> None:
        sequence = data.draw(st.sampled_from(self.live))
        if forget:
            self.cache.forget(sequence)
            for block_id in sequence.block_ids:
                self.holds.pop(block_id, None)
        self.pool.free(sequence.block_ids)
        for block_id in reversed(sequence.block_ids):
            self.users[block_id] -= 1
            if self.users[block_id] == 0 and block_id in self.holds:
                self.evictable.append(block_id)
        self.live.remove(sequence)
        del self.num_registered[sequence]

    @rule()
    def reset(self) -> None:
        assert self.cache.reset() == (not any(self.users))
        if not any(self.users):
            self.holds.clear()
            self.evictable.clear()

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        assert [self.pool.num_users(block) for block in range(self.num_blocks)] == self.users
        assert self.pool.num_free == self.users.count(0)
        named = {b for b in range(self.num_blocks) if self.pool.name_of(b) is not None}
        assert named == set(self.holds)


CacheMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, derandomize=True
)
TestCacheMachine = CacheMachine.TestCase
