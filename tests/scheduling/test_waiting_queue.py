import pytest

from tests.scheduling.checked_model import make_sequence
from wheelpit.scheduling.waiting_queue import WaitingQueue


def make_queue(count: int, tenant: str = ""):
    queue = WaitingQueue()
    sequences = [make_sequence(str(number), [1], tenant=tenant) for number in range(count)]
    for number, sequence in enumerate(sequences):
        sequence.number = number
        sequence.rank = (number,)
    for sequence in reversed(sequences):
        queue.push(sequence)
    return queue, sequences


def drain(queue):
    """Remove the head again and again; only for one tenant."""
    while queue:
        (head,) = queue.heads()
        queue.remove(head)
        queue.check()
        yield head


def test_the_smallest_rank_comes_out_first():
    queue, sequences = make_queue(5)
    assert list(drain(queue)) == sequences


def test_looking_at_the_head_takes_nothing_out():
    queue, sequences = make_queue(2)
    assert queue.heads() == [sequences[0]]
    assert queue.heads() == [sequences[0]]
    assert len(queue) == 2


def test_a_removed_sequence_does_not_come_out():
    queue, sequences = make_queue(4)
    queue.remove(sequences[0])
    queue.remove(sequences[2])
    assert len(queue) == 2
    assert list(drain(queue)) == [sequences[1], sequences[3]]


def test_a_sequence_can_return_after_it_was_removed():
    queue, sequences = make_queue(2)
    queue.remove(sequences[0])
    queue.push(sequences[0])
    assert list(drain(queue)) == sequences


def test_a_new_rank_moves_a_sequence():
    queue, sequences = make_queue(3)
    queue.rerank(sequences[0], (7,))
    queue.rerank(sequences[2], (-1,))
    assert list(drain(queue)) == [sequences[2], sequences[1], sequences[0]]


def test_an_old_rank_can_be_taken_again():
    queue, sequences = make_queue(2)
    queue.rerank(sequences[0], (7,))
    queue.rerank(sequences[0], (0,))
    assert list(drain(queue)) == sequences


def test_each_tenant_has_a_head():
    queue, sequences = make_queue(2, tenant="a")
    other = make_sequence("other", [1], tenant="b")
    other.rank = (5,)
    queue.push(other)
    assert queue.heads() == [sequences[0], other]
    queue.remove(other)
    assert queue.heads() == [sequences[0]]


@pytest.mark.parametrize("order", [1, -1])
def test_dead_entries_do_not_pile_up(order):
    queue, sequences = make_queue(1000)
    for sequence in sequences[:990][::order]:
        queue.remove(sequence)
        queue.check()
    assert list(drain(queue)) == sequences[990:]
