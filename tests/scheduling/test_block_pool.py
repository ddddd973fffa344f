import pytest

from wheelpit.scheduling.block_pool import BlockPool


def named(pool: BlockPool, name: bytes) -> int:
    """Allocate a block, name it and free it: it is cached then."""
    (block_id,) = pool.allocate(1)
    pool.set_name(block_id, name)
    pool.free([block_id])
    return block_id


def test_fresh_blocks_come_out_ascending():
    pool = BlockPool(5)
    assert pool.allocate(2) == [0, 1]
    assert pool.allocate(3) == [2, 3, 4]


def test_freed_blocks_are_reused_first_and_in_the_order_they_had():
    pool = BlockPool(8)
    blocks = pool.allocate(3)
    pool.free(blocks)
    assert pool.allocate(3) == blocks


def test_a_shared_block_is_free_after_its_last_user():
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.touch(blocks)
    pool.free(blocks)
    assert pool.num_free == 1
    pool.free(blocks)
    assert pool.num_free == 2
    pool.check()


def test_a_named_block_is_found_after_it_was_freed():
    pool = BlockPool(2)
    block_id = named(pool, b"a")
    assert pool.find(b"a") == block_id
    pool.touch([block_id])
    assert pool.num_free == 1
    assert pool.num_users(block_id) == 1
    pool.check()


def test_fresh_blocks_are_used_before_cached_ones_are_evicted():
    pool = BlockPool(3)
    cached = named(pool, b"a")
    assert cached not in pool.allocate(2)
    assert pool.find(b"a") == cached
    assert pool.allocate(1) == [cached]
    assert pool.find(b"a") is None
    pool.check()


def test_the_least_recently_used_block_is_evicted_first():
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    for block_id, name in zip(blocks, (b"a", b"b", b"c"), strict=True):
        pool.set_name(block_id, name)
    for block_id in blocks:
        pool.free([block_id])
    pool.touch([blocks[0]])
    pool.free([blocks[0]])
    assert [pool.allocate(1)[0] for _ in range(3)] == [blocks[1], blocks[2], blocks[0]]


def test_of_one_table_the_last_blocks_are_evicted_first():
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    for index, block_id in enumerate(blocks):
        pool.set_name(block_id, bytes([index]))
    pool.free(blocks)
    assert pool.allocate(3) == blocks[::-1]


def test_a_second_block_of_the_same_name_stays_unnamed():
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.set_name(first, b"a")
    pool.set_name(second, b"a")
    assert pool.find(b"a") == first
    assert pool.name_of(second) is None
    pool.free([first, second])
    assert pool.allocate(1) == [second]
    pool.check()


def test_names_are_forgotten_together_only_when_nothing_is_in_use():
    pool = BlockPool(3)
    block_id = named(pool, b"a")
    pool.touch([block_id])
    assert not pool.unname_all()
    assert pool.find(b"a") == block_id
    pool.free([block_id])
    assert pool.unname_all()
    assert pool.find(b"a") is None
    assert pool.allocate(3) == [0, 1, 2]
    pool.check()


def test_usage_counts_cached_blocks_as_free():
    pool = BlockPool(4)
    assert pool.usage == 0.0
    named(pool, b"a")
    assert pool.usage == 0.0
    pool.allocate(3)
    assert pool.usage == 0.75


def test_freeing_a_block_twice_is_noticed():
    pool = BlockPool(1)
    blocks = pool.allocate(1)
    pool.free(blocks)
    with pytest.raises(AssertionError, match="has no user"):
        pool.free(blocks)


def test_taking_more_than_is_free_is_noticed():
    with pytest.raises(AssertionError, match="2 blocks wanted, 1 are free"):
        BlockPool(1).allocate(2)
