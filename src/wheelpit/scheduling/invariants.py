"""What holds between the sequences and the blocks of a scheduler at any moment between calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from wheelpit.scheduling.block_pool import BlockPool
from wheelpit.scheduling.prefix_cache import block_name, root_name
from wheelpit.scheduling.sequence import Sequence, SequenceStatus
from wheelpit.scheduling.waiting_queue import WaitingQueue


def check(
    sequences: Mapping[str, Sequence],
    waiting: WaitingQueue,
    running: list[Sequence],
    pool: BlockPool,
    block_size: int,
) -> None:
    """Assert all of it; slow, for tests."""
    pool.check()
    waiting.check()
    assert set(waiting).isdisjoint(running), "a sequence waits and runs"
    assert {*waiting, *running} == set(sequences.values()), "a sequence is lost, or left over"
    assert all(request_id == sequence.request_id for request_id, sequence in sequences.items())
    assert all(a.rank < b.rank for a, b in pairwise(running)), "running is not in order"
    users = Counter(block_id for sequence in running for block_id in sequence.block_ids)
    for block_id in range(pool.num_blocks):
        num_users = pool.num_users(block_id)
        assert users[block_id] == num_users, (
            f"block {block_id} counts {num_users} users, has {users[block_id]}"
        )
    for sequence in waiting:
        assert sequence.status is SequenceStatus.WAITING
        assert sequence.num_computed_tokens == 0, "a waiting sequence has progress"
        assert not sequence.block_ids, "a waiting sequence has blocks"
        _check_names(sequence, block_size)
    for sequence in running:
        _check_running(sequence, pool, block_size)


def _check_running(sequence: Sequence, pool: BlockPool, block_size: int) -> None:
    assert sequence.status is SequenceStatus.RUNNING
    num_computed, block_ids = sequence.num_computed_tokens, sequence.block_ids
    assert num_computed < sequence.num_tokens, "a running sequence has nothing to do"
    assert num_computed <= len(block_ids) * block_size, "computed tokens have no block"
    assert (len(block_ids) - 1) * block_size < sequence.num_tokens, "a block has no tokens"
    assert len(set(block_ids)) == len(block_ids), "a block is twice in a table"
    _check_names(sequence, block_size)
    for index, block_id in enumerate(block_ids):
        name = pool.name_of(block_id)
        if name is not None:
            assert index < num_computed // block_size, "a block is named before it is computed"
            assert name == sequence.block_names[index], "a block holds something else than named"
        elif pool.num_users(block_id) > 1:
            # Only an error in one of its users takes the name from a shared block.
            assert index < num_computed // block_size, "a block is shared before it is computed"


def _check_names(sequence: Sequence, block_size: int) -> None:
    assert len(sequence.block_names) * block_size <= sequence.num_tokens, "a name covers no tokens"
    parent = root_name(sequence.cache_salt)
    for index, name in enumerate(sequence.block_names):
        tokens = sequence.token_ids[index * block_size : (index + 1) * block_size]
        parent = block_name(parent, tokens)
        assert name == parent, "the chain of names does not follow from the tokens"
