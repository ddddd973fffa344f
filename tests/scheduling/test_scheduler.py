"""Continuous batching, one situation at a time. test_scheduler_machine.py has the random ones."""

import pytest

from tests.scheduling.checked_model import (
    CheckedModel,
    generate,
    make_sequence,
    run_to_end,
    score,
    step,
)
from wheelpit.config import CacheConfig, SchedulerConfig
from wheelpit.errors import ConfigError, ValidationError
from wheelpit.request import SamplingParams
from wheelpit.scheduling.batch import SampledToken
from wheelpit.scheduling.scheduler import Scheduler
from wheelpit.scheduling.sequence import SequenceStatus

SIZE = 4


def make(num_blocks=32, max_model_len=64, *, prefix=True, seats=4, budget=32, **config):
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=seats, max_num_batched_tokens=budget, **config),
        CacheConfig(block_size=SIZE, enable_prefix_caching=prefix),
        num_blocks,
        max_model_len,
    )
    return scheduler, CheckedModel(num_blocks, SIZE)


def shape(batch):
    """Say what is scheduled: {request id: (start, tokens, samples)}."""
    return {
        item.sequence.request_id: (item.start, item.num_tokens, item.samples)
        for item in batch.sequences
    }


def complete(scheduler, model, batch):
    """Compute and take in a batch that was scheduled before."""
    outputs = scheduler.update(batch, model.run(model.launch(batch)), 0.0)
    scheduler.check()
    return outputs


def test_a_prompt_is_one_step_and_each_further_token_another():
    scheduler, model = make()
    sequence = make_sequence("a", [1, 2, 3, 4, 5], max_tokens=3)
    scheduler.add(sequence, 0.0)
    batch = scheduler.schedule(0.0)
    assert shape(batch) == {"a": (0, 5, True)}
    (first,) = complete(scheduler, model, batch)
    assert (first.is_first, first.finish_reason, len(first.token_ids)) == (True, None, 1)
    batch = scheduler.schedule(0.0)
    assert shape(batch) == {"a": (5, 1, True)}
    (second,) = complete(scheduler, model, batch)
    assert not second.is_first
    (third,) = step(scheduler, model)
    assert third.finish_reason == "length"
    assert sequence.token_ids[5:] == generate(sequence, 64)[0]
    assert not scheduler.has_work
    assert not scheduler.schedule(0.0).sequences
    assert scheduler.stats().num_free_blocks == 32


def test_a_long_prompt_is_computed_in_chunks_of_the_budget():
    scheduler, model = make(budget=8)
    scheduler.add(make_sequence("a", list(range(18))), 0.0)
    shapes = []
    for _ in range(3):
        batch = scheduler.schedule(0.0)
        shapes.append(shape(batch))
        complete(scheduler, model, batch)
    assert shapes == [{"a": (0, 8, False)}, {"a": (8, 8, False)}, {"a": (16, 2, True)}]


def test_several_prompts_share_a_step_and_the_last_is_cut():
    scheduler, _ = make(budget=16)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 7), 0.0)
    assert shape(scheduler.schedule(0.0)) == {
        "a": (0, 7, True),
        "b": (0, 7, True),
        "c": (0, 2, False),
    }


def test_a_long_prompt_leaves_a_token_for_every_decode_behind_it():
    scheduler, model = make(budget=8, policy="priority")
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)], max_tokens=9, priority=5), 0.0)
    step(scheduler, model)
    scheduler.add(make_sequence("urgent", list(range(30)), priority=1), 0.0)
    step(scheduler, model)
    assert shape(scheduler.schedule(0.0)) == {
        "urgent": (5, 5, False),
        "a": (2, 1, True),
        "b": (2, 1, True),
        "c": (2, 1, True),
    }


def test_a_threshold_keeps_one_long_prompt_from_taking_the_whole_step():
    scheduler, _ = make(budget=16, long_prefill_token_threshold=6)
    scheduler.add(make_sequence("long", list(range(30))), 0.0)
    scheduler.add(make_sequence("short", [7] * 5), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"long": (0, 6, False), "short": (0, 5, True)}


def test_without_chunked_prefill_only_whole_prompts_are_scheduled():
    scheduler, model = make(budget=64, enable_chunked_prefill=False, long_prefill_token_threshold=3)
    scheduler.add(make_sequence("a", [1] * 40), 0.0)
    scheduler.add(make_sequence("b", [2] * 30), 0.0)
    batch = scheduler.schedule(0.0)
    assert shape(batch) == {"a": (0, 40, True)}
    complete(scheduler, model, batch)
    assert shape(scheduler.schedule(0.0)) == {"a": (40, 1, True), "b": (0, 30, True)}


def test_without_chunked_prefill_the_budget_must_hold_a_whole_context():
    with pytest.raises(ConfigError, match="max_num_batched_tokens is 32, must be at least"):
        make(budget=32, max_model_len=64, enable_chunked_prefill=False)


def test_no_more_sequences_run_than_there_are_seats():
    scheduler, model = make(seats=2)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)], max_tokens=2), 0.0)
    step(scheduler, model)
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    step(scheduler, model)
    assert shape(scheduler.schedule(0.0)) == {"c": (0, 1, True)}


def test_a_shared_prefix_is_computed_once():
    scheduler, model = make()
    prompt = list(range(10))
    scheduler.add(make_sequence("a", prompt, max_tokens=20), 0.0)
    step(scheduler, model)
    scheduler.add(make_sequence("b", prompt), 0.0)
    batch = scheduler.schedule(0.0)
    assert shape(batch)["b"] == (8, 2, True)
    a, b = (item.sequence for item in batch.sequences)
    assert a.block_ids[:2] == b.block_ids[:2]
    assert (a.num_cached_tokens, b.num_cached_tokens) == (0, 8)
    complete(scheduler, model, batch)
    stats = scheduler.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (20, 8)


def test_of_a_fully_cached_prompt_one_block_is_computed_again():
    scheduler, model = make()
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8)), max_tokens=1), 0.0)
        batch = scheduler.schedule(0.0)
        complete(scheduler, model, batch)
    assert shape(batch) == {"b": (4, 4, True)}


def test_a_cached_answer_is_a_prefix_of_the_next_turn():
    scheduler, model = make()
    first = make_sequence("first", [1, 2, 3], max_tokens=6)
    scheduler.add(first, 0.0)
    run_to_end(scheduler, model)
    scheduler.add(make_sequence("next", [*first.token_ids, 5, 6]), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"next": (8, 3, True)}


def test_a_sequence_that_skips_reading_the_prefix_cache_still_writes_it():
    scheduler, model = make()
    skipping = SamplingParams(max_tokens=1, skip_reading_prefix_cache=True)
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8)), skipping, max_tokens=1), 0.0)
        batch = scheduler.schedule(0.0)
        assert shape(batch) == {name: (0, 8, True)}
        complete(scheduler, model, batch)
    scheduler.add(make_sequence("c", list(range(8))), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"c": (4, 4, True)}
    assert scheduler.stats().prefix_cache_queries == 8


def test_prompts_computed_in_the_same_step_keep_their_own_copies():
    scheduler, _ = make()
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8))), 0.0)
    batch = scheduler.schedule(0.0)
    assert shape(batch) == {"a": (0, 8, True), "b": (0, 8, True)}
    a, b = (item.sequence.block_ids for item in batch.sequences)
    assert set(a).isdisjoint(b)


def test_without_prefix_caching_nothing_is_shared():
    scheduler, model = make(prefix=False)
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8)), max_tokens=1), 0.0)
        batch = scheduler.schedule(0.0)
        assert shape(batch) == {name: (0, 8, True)}
        complete(scheduler, model, batch)
    assert scheduler.reset_prefix_cache()


def test_the_prefix_cache_is_reset_only_while_no_block_is_in_use():
    scheduler, model = make()
    scheduler.add(make_sequence("a", list(range(8)), max_tokens=2), 0.0)
    step(scheduler, model)
    assert not scheduler.reset_prefix_cache()
    run_to_end(scheduler, model)
    assert scheduler.reset_prefix_cache()
    scheduler.add(make_sequence("b", list(range(8))), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"b": (0, 8, True)}


@pytest.mark.parametrize("prefix", [True, False])
def test_fcfs_preempts_the_most_recently_started_and_loses_nothing(prefix):
    scheduler, model = make(num_blocks=5, prefix=prefix)
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
    scheduler, model = make(num_blocks=7)
    scheduler.add(make_sequence("a", [1] * 11, max_tokens=3), 0.0)
    scheduler.add(make_sequence("b", [2] * 11, max_tokens=6), 0.0)
    for _ in range(3):
        batch = scheduler.schedule(0.0)
        complete(scheduler, model, batch)
    assert scheduler.stats().num_preemptions == 1
    assert shape(scheduler.schedule(0.0)) == {"b": (12, 1, True)}


def test_a_preempted_sequence_goes_before_all_that_wait():
    scheduler, model = make(num_blocks=7, prefix=False, seats=2)
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


def test_priority_starts_the_smallest_first_and_ties_by_arrival_then_order_of_adding():
    scheduler, _ = make(seats=1, policy="priority")
    for name, priority, arrival_s in (
        ("low", 9, 0.0),
        ("late", 1, 5.0),
        ("early, second", 1, 2.0),
        ("early, third", 1, 2.0),
        ("urgent", -3, 9.0),
    ):
        scheduler.add(
            make_sequence(name, [1], max_tokens=1, priority=priority, arrival_s=arrival_s), 0.0
        )
    order = []
    while scheduler.has_work:
        batch = scheduler.schedule(0.0)
        order += shape(batch)
        scheduler.update(batch, [SampledToken(3)] * len(batch.sequences), 0.0)
    assert order == ["urgent", "early, second", "early, third", "late", "low"]


def test_fcfs_ignores_priority():
    scheduler, _ = make(seats=1)
    scheduler.add(make_sequence("first", [1], priority=9), 0.0)
    scheduler.add(make_sequence("urgent", [1], priority=0), 0.0)
    assert set(shape(scheduler.schedule(0.0))) == {"first"}


def test_priority_preempts_the_largest_even_if_it_started_first():
    scheduler, model = make(num_blocks=5, policy="priority")
    scheduler.add(make_sequence("low", [1] * 7, max_tokens=8, priority=2), 0.0)
    step(scheduler, model)
    scheduler.add(make_sequence("high", [2] * 7, max_tokens=8, priority=1), 0.0)
    while scheduler.stats().num_preemptions == 0:
        batch = scheduler.schedule(0.0)
        complete(scheduler, model, batch)
    assert set(shape(batch)) == {"high"}


def test_a_sequence_starts_only_when_its_whole_prompt_fits():
    scheduler, model = make(num_blocks=7, long_prefill_token_threshold=8)
    scheduler.add(make_sequence("long", list(range(16)), max_tokens=2), 0.0)
    scheduler.add(make_sequence("short", [9] * 9), 0.0)
    # 4 blocks are promised to the first, though it has only 2 of them yet, and one
    # more to grow into; the second needs 3.
    assert set(shape(scheduler.schedule(0.0))) == {"long"}
    assert scheduler.stats().num_free_blocks == 5
    run_to_end(scheduler, model)
    assert scheduler.stats().num_preemptions == 0


def test_a_start_leaves_a_free_block_for_each_running_sequence():
    scheduler, _ = make(num_blocks=5)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 3), 0.0)
    # Each needs 1; when the third starts, 3 are free and 2 are for those that run.
    assert set(shape(scheduler.schedule(0.0))) == {"a", "b", "c"}
    scheduler, _ = make(num_blocks=4)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 3), 0.0)
    assert set(shape(scheduler.schedule(0.0))) == {"a", "b"}


def test_cached_blocks_that_a_start_revives_are_not_counted_as_free():
    scheduler, model = make(num_blocks=5)
    scheduler.add(make_sequence("a", list(range(8)), max_tokens=1), 0.0)
    run_to_end(scheduler, model)
    scheduler.add(make_sequence("b", [7] * 7, max_tokens=9), 0.0)
    step(scheduler, model)
    scheduler.add(make_sequence("c", [*range(8), 1]), 0.0)  # 2 cached and 1 new of 3 free
    assert set(shape(scheduler.schedule(0.0))) == {"b"}
    scheduler.check()


def test_a_single_sequence_may_fill_the_whole_cache_and_then_ends():
    scheduler, model = make(num_blocks=3, max_model_len=64)
    sequence = make_sequence("a", [1, 2, 3], max_tokens=60)
    scheduler.add(sequence, 0.0)
    tokens = run_to_end(scheduler, model)
    assert tokens["a"] == generate(sequence, 3 * SIZE)[0]
    assert sequence.num_tokens == 3 * SIZE


def test_a_continuation_goes_on_from_its_output_tokens():
    """A request that is replayed after a crash has output tokens when it is added."""
    scheduler, model = make()
    whole = make_sequence("whole", [1, 2, 3], max_tokens=6)
    scheduler.add(whole, 0.0)
    run_to_end(scheduler, model)
    rest = make_sequence("rest", whole.token_ids[:3], max_tokens=6)
    rest.token_ids += whole.token_ids[3:7]
    scheduler.add(rest, 0.0)
    assert run_to_end(scheduler, model)["rest"] == whole.token_ids[7:]


def test_the_wait_in_the_queue_is_measured_with_the_callers_clock():
    scheduler, _ = make(seats=1)
    sequence = make_sequence("a", [1])
    scheduler.add(sequence, 10.0)
    assert sequence.queue_s is None
    scheduler.schedule(12.5)
    assert sequence.queue_s == 2.5


def test_prompt_logprobs_come_complete_with_the_first_output():
    scheduler, model = make(budget=4)
    prompt = [1, 5, 2, 8, 3, 7, 3, 9, 6]
    params = SamplingParams(max_tokens=3, prompt_logprobs=0)
    scheduler.add(make_sequence("a", prompt, params, max_tokens=3), 0.0)
    outputs = [output for _ in range(5) for output in step(scheduler, model)]
    assert outputs[0].prompt_logprobs == tuple(score(prompt, i) for i in range(1, len(prompt)))
    assert [output.prompt_logprobs for output in outputs[1:]] == [(), ()]


def test_prompt_logprobs_are_delivered_once_though_preemption_computes_them_twice():
    scheduler, model = make(num_blocks=10, budget=8, long_prefill_token_threshold=2)
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


def test_prompt_logprobs_are_owed_even_if_the_prefix_cache_may_be_read():
    scheduler, model = make()
    prompt = list(range(9))
    scheduler.add(make_sequence("a", prompt, max_tokens=1), 0.0)
    run_to_end(scheduler, model)
    params = SamplingParams(max_tokens=1, prompt_logprobs=0, skip_reading_prefix_cache=False)
    scheduler.add(make_sequence("b", prompt, params, max_tokens=1), 0.0)
    (output,) = step(scheduler, model)
    assert len(output.prompt_logprobs) == 8


def test_an_error_ends_one_sequence_and_its_blocks_are_not_trusted():
    scheduler, model = make()
    sequences = [make_sequence(name, [ord(name)] * 8) for name in "ab"]
    for sequence in sequences:
        scheduler.add(sequence, 0.0)
    step(scheduler, model)
    batch = scheduler.schedule(0.0)
    sampled = model.run(model.launch(batch))
    sampled[0] = SampledToken(error="logits are not finite")
    failed, alive = scheduler.update(batch, sampled, 0.0)
    scheduler.check()
    assert failed.sequence is sequences[0]
    assert (failed.finish_reason, failed.error) == ("error", "logits are not finite")
    assert failed.token_ids == ()
    assert alive.finish_reason is None
    scheduler.add(make_sequence("again", sequences[0].token_ids), 0.0)
    assert shape(scheduler.schedule(0.0))["again"] == (0, 9, True)


def test_failing_a_sequence_twice_reports_it_once():
    scheduler, _ = make()
    sequence = make_sequence("a", [1])
    scheduler.add(sequence, 0.0)
    output = scheduler.fail(sequence, "no")
    assert output is not None
    assert (output.finish_reason, output.error, output.is_first) == ("error", "no", True)
    assert scheduler.fail(sequence, "no") is None
    assert not scheduler.has_work


def test_a_batch_whose_step_failed_can_be_scheduled_again():
    scheduler, model = make()
    scheduler.add(make_sequence("a", [1] * 9), 0.0)
    assert shape(scheduler.schedule(0.0)) == shape(scheduler.schedule(0.0))
    run_to_end(scheduler, model)


@pytest.mark.parametrize(
    ("prompt", "num_blocks", "message"),
    [
        ([], 32, "prompt is empty"),
        ([1] * 64, 32, "limit is 64 by max_model_len"),
        ([1] * 32, 8, "limit is 32 by the KV cache"),
    ],
)
def test_a_sequence_that_can_never_run_is_refused(prompt, num_blocks, message):
    scheduler, _ = make(num_blocks=num_blocks)
    with pytest.raises(ValidationError, match=message):
        scheduler.add(make_sequence("a", prompt), 0.0)
    assert not scheduler.has_work
    scheduler.check()


def test_the_largest_prompt_that_fits_runs():
    scheduler, model = make(num_blocks=8)
    scheduler.add(make_sequence("a", [1] * 31), 0.0)
    assert len(run_to_end(scheduler, model)["a"]) == 1


def test_a_request_id_in_use_is_refused():
    scheduler, _ = make()
    scheduler.add(make_sequence("a", [1]), 0.0)
    with pytest.raises(ValidationError, match="'a' is in use"):
        scheduler.add(make_sequence("a", [2]), 0.0)


def test_a_continuation_with_nothing_left_is_refused():
    scheduler, _ = make()
    sequence = make_sequence("a", [1], max_tokens=2)
    sequence.token_ids += [5, 6]
    with pytest.raises(ValidationError, match="limit is 2: raise max_tokens"):
        scheduler.add(sequence, 0.0)
