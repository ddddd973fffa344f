"""Who gives up its blocks, and that nothing is lost by it."""

import pytest

from tests.scheduling.checked_model import (
    complete,
    generate,
    make_scheduler,
    make_sequence,
    run_to_end,
    score,
    shape,
    step,
)
from wheelpit.request import SamplingParams
from wheelpit.scheduling.sequence import SequenceStatus


@pytest.mark.parametrize("prefix", [True, False])
def test_fcfs_preempts_the_most_recently_started_and_loses_nothing(prefix):
    scheduler, model = make_scheduler(num_blocks=5, prefix=prefix)
    sequences = [make_sequence(name, [ord(name)] * 7, max_tokens=8) for name in "ab"]
    for sequence in sequences:
        scheduler.add(sequence, 0.0)
    while scheduler.stats().num_preemptions == 0:
        batch = scheduler.schedule(0.0)
        scheduler.check()
        complete(scheduler, model, batch)
    assert set(shape(batch)) == {"a"}
    a, b = sequences
    assert b.status is SequenceStatus.WAITING
    assert b.num_output_tokens > 0
    run_to_end(scheduler, model)
    for sequence in sequences:
        assert sequence.token_ids[7:] == generate(sequence, 20)[0]
    assert (a.num_preemptions, b.num_preemptions) == (0, 1)


def test_a_preempted_sequence_finds_its_own_blocks_again():
    scheduler, model = make_scheduler(num_blocks=7)
    scheduler.add(make_sequence("a", [1] * 11, max_tokens=3), 0.0)
    scheduler.add(make_sequence("b", [2] * 11, max_tokens=6), 0.0)
    for _ in range(3):
        batch = scheduler.schedule(0.0)
        complete(scheduler, model, batch)
    assert scheduler.stats().num_preemptions == 1
    assert shape(scheduler.schedule(0.0)) == {"b": (12, 1, True)}


def test_a_preempted_sequence_goes_before_all_that_wait():
    scheduler, model = make_scheduler(num_blocks=7, prefix=False, seats=2)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 9, max_tokens=8), 0.0)
    order = []
    for _ in range(200):
        if not scheduler.has_work:
            break
        for output in step(scheduler, model):
            if output.finish_reason:
                order.append(output.sequence.request_id)
    assert scheduler.stats().num_preemptions > 0
    assert order == ["a", "b", "c"]


def test_priority_preempts_the_largest_even_if_it_started_first():
    scheduler, model = make_scheduler(num_blocks=5, policy="priority")
    scheduler.add(make_sequence("low", [1] * 7, max_tokens=8, priority=2), 0.0)
    step(scheduler, model)
    scheduler.add(make_sequence("high", [2] * 7, max_tokens=8, priority=1), 0.0)
    while scheduler.stats().num_preemptions == 0:
        batch = scheduler.schedule(0.0)
        complete(scheduler, model, batch)
    assert set(shape(batch)) == {"high"}


def test_prompt_logprobs_are_delivered_once_though_preemption_computes_them_twice():
    scheduler, model = make_scheduler(num_blocks=10, budget=8, long_prefill_token_threshold=2)
    prompt = [5, 1, 5, 2, 5, 3, 5, 4] * 2
    params = SamplingParams(max_tokens=3, prompt_logprobs=0)
    for name in "ab":
        scheduler.add(make_sequence(name, [ord(name)], max_tokens=30), 0.0)
    for _ in range(7):
        step(scheduler, model)
    sequence = make_sequence("c", prompt, params, max_tokens=3)
    scheduler.add(sequence, 0.0)
    outputs = []
    while sequence.num_preemptions == 0:
        outputs += step(scheduler, model)
    assert 0 < len(sequence.prompt_logprobs) < len(prompt) - 1
    while scheduler.has_work:
        outputs += step(scheduler, model)
    outputs = [output for output in outputs if output.sequence is sequence]
    assert outputs[0].prompt_logprobs == tuple(score(prompt, i) for i in range(1, len(prompt)))
    assert [output.prompt_logprobs for output in outputs[1:]] == [(), ()]
