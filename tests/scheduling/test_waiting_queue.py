import pytest

from tests.scheduling.checked_model import make_sequence
from wheelpit.scheduling.waiting_queue import WaitingQueue


def make_queue(count: int):
    queue = WaitingQueue()
    sequences = [make_sequence(str(number), [1]) for number in range(count)]
    for number, sequence in enumerate(sequences):
        sequence.rank = (number,)
    for sequence in reversed(sequences):
        queue.push(sequence)
    return queue, sequences


def test_the_smallest_rank_comes_out_first():
    queue, sequences = make_queue(5)
    assert [queue.pop() for _ in range(5)] == sequences


def test_peek_returns_what_pop_will():
    queue, sequences = make_queue(2)
    assert queue.peek() is sequences[0]
    assert len(queue) == 2
    assert queue.pop() is sequences[0]


def test_a_removed_sequence_does_not_come_out():
    queue, sequences = make_queue(4)
    queue.remove(sequences[0])
    queue.remove(sequences[2])
    assert len(queue) == 2
    assert [queue.pop(), queue.pop()] == [sequences[1], sequences[3]]
    queue.check()


def test_a_sequence_can_return_after_it_was_popped():
    queue, sequences = make_queue(2)
    queue.push(queue.pop())
    assert [queue.pop(), queue.pop()] == sequences
    queue.check()


@pytest.mark.parametrize("order", [1, -1])
def test_dead_entries_do_not_pile_up(order):
    queue, sequences = make_queue(1000)
    for sequence in sequences[:990][::order]:
        queue.remove(sequence)
        queue.check()
    while queue:
        queue.pop()
        queue.check()
