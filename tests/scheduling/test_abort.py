"""Aborting frees everything at once, in every state."""

import pytest

from tests.scheduling.checked_model import CheckedModel, make_sequence, run_to_end, step
from wheelpit.config import CacheConfig, SchedulerConfig
from wheelpit.scheduling.scheduler import Scheduler
from wheelpit.scheduling.sequence import SequenceStatus

NUM_BLOCKS = 6


@pytest.fixture
def scheduler():
    return Scheduler(
        SchedulerConfig(max_num_seqs=2, max_num_batched_tokens=8),
        CacheConfig(block_size=4),
        NUM_BLOCKS,
        24,
    )


@pytest.fixture
def model():
    return CheckedModel(NUM_BLOCKS, 4)


def abort_and_check(scheduler, sequence):
    assert scheduler.abort(sequence.request_id) is sequence
    scheduler.check()
    assert sequence.status is SequenceStatus.FINISHED
    assert sequence.block_ids == []
    assert scheduler.abort(sequence.request_id) is None
    if not scheduler.has_work:
        assert scheduler.stats().num_free_blocks == NUM_BLOCKS


def test_a_waiting_sequence(scheduler, model):
    sequences = [make_sequence(name, [ord(name)] * 4) for name in "abc"]
    for sequence in sequences:
        scheduler.add(sequence, 0.0)
    abort_and_check(scheduler, sequences[1])
    assert set(run_to_end(scheduler, model)) == {"a", "c"}


def test_a_sequence_in_the_middle_of_its_prompt(scheduler, model):
    sequence = make_sequence("a", list(range(20)))
    scheduler.add(sequence, 0.0)
    step(scheduler, model)
    assert sequence.num_computed_tokens == 8
    abort_and_check(scheduler, sequence)


def test_a_decoding_sequence(scheduler, model):
    sequence = make_sequence("a", [1, 2])
    scheduler.add(sequence, 0.0)
    step(scheduler, model)
    abort_and_check(scheduler, sequence)


def test_a_preempted_sequence(scheduler, model):
    sequences = [make_sequence(name, [ord(name)] * 5, max_tokens=12) for name in "ab"]
    for sequence in sequences:
        scheduler.add(sequence, 0.0)
    while not sequences[1].num_preemptions:
        step(scheduler, model)
    abort_and_check(scheduler, sequences[1])
    assert set(run_to_end(scheduler, model)) == {"a"}


def test_a_sequence_in_the_step_in_flight(scheduler, model):
    first, second = (make_sequence(name, [ord(name)] * 4) for name in "ab")
    scheduler.add(first, 0.0)
    scheduler.add(second, 0.0)
    batch = scheduler.schedule(0.0)
    launched = model.launch(batch)
    abort_and_check(scheduler, first)
    outputs = scheduler.update(batch, model.run(launched), 0.0)
    assert [output.sequence for output in outputs] == [second]
    assert first.num_output_tokens == 0
    scheduler.check()


def test_the_same_id_can_be_used_again_while_the_old_one_is_in_flight(scheduler, model):
    old, new = make_sequence("a", [1] * 4), make_sequence("a", [2] * 4)
    scheduler.add(old, 0.0)
    batch = scheduler.schedule(0.0)
    launched = model.launch(batch)
    abort_and_check(scheduler, old)
    scheduler.add(new, 0.0)
    assert scheduler.update(batch, model.run(launched), 0.0) == []
    assert new.num_output_tokens == 0
    assert len(run_to_end(scheduler, model)["a"]) == 4


def test_an_unknown_id_is_ignored(scheduler):
    assert scheduler.abort("nobody") is None


def test_a_sequence_can_be_ended_with_an_output(scheduler, model):
    sequence = make_sequence("a", [1, 2])
    scheduler.add(sequence, 0.0)
    step(scheduler, model)
    output = scheduler.finish(sequence, "abort")
    assert output is not None
    assert (output.finish_reason, output.token_ids, output.is_first) == ("abort", (), False)
    assert scheduler.finish(sequence, "abort") is None
    scheduler.check()
