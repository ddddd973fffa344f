from tests.scheduling.checked_model import make_sequence
from wheelpit.scheduling.block_pool import BlockPool
from wheelpit.scheduling.prefix_cache import PrefixCache, block_name, root_name

SIZE = 4


def computed(pool: BlockPool, cache: PrefixCache, prompt: list[int], salt: str | None = None):
    """Put a whole prompt into blocks and register the full ones."""
    sequence = make_sequence("computed", prompt, cache_salt=salt)
    sequence.block_ids = pool.allocate(-(-len(prompt) // SIZE))
    cache.register(sequence, 0, len(prompt) // SIZE)
    return sequence


def make_cache(num_blocks: int = 8) -> tuple[BlockPool, PrefixCache]:
    pool = BlockPool(num_blocks)
    return pool, PrefixCache(pool, SIZE)


def test_the_longest_cached_prefix_is_found_in_whole_blocks():
    pool, cache = make_cache()
    first = computed(pool, cache, list(range(11)))
    other = make_sequence("other", [*range(10), 99, 100, 101])
    assert cache.find_prefix(other, other.num_tokens - 1) == first.block_ids[:2]


def test_a_prefix_is_cut_to_what_the_caller_allows():
    pool, cache = make_cache()
    first = computed(pool, cache, list(range(8)))
    again = make_sequence("again", list(range(8)))
    assert cache.find_prefix(again, 8) == first.block_ids
    assert cache.find_prefix(again, 7) == first.block_ids[:1]


def test_equal_blocks_after_different_prefixes_have_different_names():
    pool, cache = make_cache()
    computed(pool, cache, [1, 1, 1, 1, 5, 5, 5, 5])
    other = make_sequence("other", [2, 2, 2, 2, 5, 5, 5, 5])
    assert cache.find_prefix(other, 8) == []


def test_sequences_of_different_salts_do_not_meet():
    pool, cache = make_cache()
    first = computed(pool, cache, [1, 1, 1, 1], salt="one tenant")
    for salt in (None, "", "another", "None"):
        assert cache.find_prefix(make_sequence("other", [1] * 5, cache_salt=salt), 4) == []
    same = make_sequence("same", [1] * 5, cache_salt="one tenant")
    assert cache.find_prefix(same, 4) == first.block_ids


def test_names_are_fixed_width_packings_that_cannot_be_split_differently():
    root = root_name(None)
    assert block_name(root, [1, 256]) != block_name(root, [256, 1])
    assert block_name(root, [1, 0]) != block_name(root, [1])
    assert block_name(root, [2**31 + 5]) != block_name(root, [5])


def test_a_gap_in_the_chain_ends_the_prefix():
    pool, cache = make_cache(3)
    first = computed(pool, cache, list(range(12)))
    root_block = first.block_ids[0]
    pool.free([root_block])
    assert pool.allocate(1) == [root_block]
    assert cache.find_prefix(make_sequence("other", list(range(12))), 12) == []


def test_two_copies_of_the_same_block_are_kept_and_the_first_is_found():
    pool, cache = make_cache()
    first = computed(pool, cache, [7] * 4)
    second = computed(pool, cache, [7] * 4)
    assert first.block_ids != second.block_ids
    assert cache.find_prefix(make_sequence("third", [7] * 5), 4) == first.block_ids


def test_forgotten_blocks_are_not_found():
    pool, cache = make_cache()
    first = computed(pool, cache, list(range(8)))
    cache.forget(first)
    pool.free(first.block_ids)
    assert cache.find_prefix(make_sequence("other", list(range(9))), 8) == []
    pool.check()


def test_reset_waits_until_no_block_is_in_use():
    pool, cache = make_cache()
    first = computed(pool, cache, list(range(8)))
    assert not cache.reset()
    pool.free(first.block_ids)
    assert cache.reset()
    assert cache.find_prefix(make_sequence("other", list(range(9))), 8) == []


def test_a_chain_is_computed_once_and_grows_with_its_sequence():
    _, cache = make_cache()
    sequence = make_sequence("grows", list(range(5)))
    cache.find_prefix(sequence, 4)
    names = list(sequence.block_names)
    sequence.token_ids += [5, 6, 7, 8]
    cache.find_prefix(sequence, 8)
    assert len(names) == 1
    assert sequence.block_names[:1] == names
    assert len(sequence.block_names) == 2
