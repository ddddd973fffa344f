"""The queue by itself; who goes first under which policy is tested in test_policies.py."""

import dataclasses

import pytest

from tests.scheduling.checked_model import make_sequence
from wheelpit.config import SchedulerConfig
from wheelpit.scheduling.forecast import Forecast
from wheelpit.scheduling.policies import make_policy
from wheelpit.scheduling.tenants import Tenants, TenantShare
from wheelpit.scheduling.waiting_queue import WaitingQueue


class Queue:
    """A WaitingQueue whose ranks are what the sequences' `priority` says."""

    def __init__(self, count: int = 0, tenant: str = "") -> None:
        self.tenants = Tenants()
        policy = dataclasses.replace(
            make_policy(SchedulerConfig()),
            rank=lambda sequence, now, forecast: (sequence.priority, sequence.number),
            is_timed=True,
        )
        self.waiting = WaitingQueue(policy, self.tenants, Forecast(16))
        self.sequences = []
        for number in range(count):
            self.add(number, tenant)
        for sequence in reversed(self.sequences):
            self.push(sequence)

    def add(self, priority: int, tenant: str = ""):
        sequence = make_sequence("", [1], tenant=tenant, priority=priority)
        sequence.number = len(self.sequences)
        sequence.rank = (priority, sequence.number)
        self.sequences.append(sequence)
        return sequence

    def push(self, sequence) -> None:
        self.tenants.on_waiting(sequence)
        self.waiting.push(sequence)

    def remove(self, sequence) -> None:
        self.tenants.on_end(sequence)
        self.waiting.remove(sequence)
        self.waiting.check()

    def drain(self):
        while (head := self.waiting.head(0.0)) is not None:
            self.remove(head)
            yield head


def test_the_smallest_rank_comes_out_first():
    queue = Queue(5)
    assert list(queue.drain()) == queue.sequences


def test_looking_at_the_head_takes_nothing_out():
    queue = Queue(2)
    assert queue.waiting.head(0.0) is queue.waiting.head(0.0) is queue.sequences[0]
    assert len(queue.waiting) == 2


def test_a_removed_sequence_does_not_come_out():
    queue = Queue(4)
    queue.remove(queue.sequences[0])
    queue.remove(queue.sequences[2])
    assert len(queue.waiting) == 2
    assert list(queue.drain()) == [queue.sequences[1], queue.sequences[3]]


def test_a_sequence_can_return_after_it_was_removed():
    queue = Queue(2)
    queue.remove(queue.sequences[0])
    queue.push(queue.sequences[0])
    assert list(queue.drain()) == queue.sequences


def test_a_new_rank_moves_a_sequence():
    queue = Queue(3)
    queue.sequences[0].priority = 7
    queue.sequences[2].priority = -1
    queue.waiting.rerank_all(1.0)
    queue.waiting.check()
    assert list(queue.drain()) == [queue.sequences[i] for i in (2, 1, 0)]


def test_a_head_whose_rank_has_grown_is_not_the_head_any_more():
    queue = Queue(3)
    queue.sequences[0].priority = 7
    assert queue.waiting.head(0.0) is queue.sequences[1]


def test_an_old_rank_can_be_taken_again():
    queue = Queue(2)
    for priority, now in ((7, 1.0), (0, 2.0)):
        queue.sequences[0].priority = priority
        queue.waiting.rerank_all(now)
    assert list(queue.drain()) == queue.sequences


def test_a_tenant_without_a_seat_left_is_passed_over():
    queue = Queue(2, tenant="a")
    other = queue.add(5, tenant="b")
    queue.push(other)
    queue.tenants.set_shares({"a": TenantShare(max_running=1)}, TenantShare())
    first = queue.waiting.head(0.0)
    assert first is queue.sequences[0]
    queue.waiting.remove(first)
    queue.tenants.on_start(first, 1)
    assert queue.waiting.head(0.0) is other


@pytest.mark.parametrize("order", [1, -1])
def test_dead_entries_do_not_pile_up(order):
    queue = Queue(1000)
    for sequence in queue.sequences[:990][::order]:
        queue.remove(sequence)
    assert list(queue.drain()) == queue.sequences[990:]
