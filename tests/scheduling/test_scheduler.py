"""Continuous batching, one situation at a time. test_scheduler_machine.py has the random ones."""

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
from wheelpit.errors import ConfigError
from wheelpit.request import SamplingParams
from wheelpit.scheduling.batch import SampledToken


def test_a_prompt_is_one_step_and_each_further_token_another():
    scheduler, model = make_scheduler()
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
    scheduler, model = make_scheduler(budget=8)
    scheduler.add(make_sequence("a", list(range(18))), 0.0)
    shapes = []
    for _ in range(3):
        batch = scheduler.schedule(0.0)
        shapes.append(shape(batch))
        complete(scheduler, model, batch)
    assert shapes == [{"a": (0, 8, False)}, {"a": (8, 8, False)}, {"a": (16, 2, True)}]


def test_several_prompts_share_a_step_and_the_last_is_cut():
    scheduler, _ = make_scheduler(budget=16)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 7), 0.0)
    assert shape(scheduler.schedule(0.0)) == {
        "a": (0, 7, True),
        "b": (0, 7, True),
        "c": (0, 2, False),
    }


def test_a_long_prompt_leaves_a_token_for_every_decode_behind_it():
    scheduler, model = make_scheduler(budget=8, policy="priority")
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
    scheduler, _ = make_scheduler(budget=16, long_prefill_token_threshold=6)
    scheduler.add(make_sequence("long", list(range(30))), 0.0)
    scheduler.add(make_sequence("short", [7] * 5), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"long": (0, 6, False), "short": (0, 5, True)}


def test_without_chunked_prefill_only_whole_prompts_are_scheduled():
    scheduler, model = make_scheduler(
        budget=64, enable_chunked_prefill=False, long_prefill_token_threshold=3
    )
    scheduler.add(make_sequence("a", [1] * 40), 0.0)
    scheduler.add(make_sequence("b", [2] * 30), 0.0)
    batch = scheduler.schedule(0.0)
    assert shape(batch) == {"a": (0, 40, True)}
    complete(scheduler, model, batch)
    assert shape(scheduler.schedule(0.0)) == {"a": (40, 1, True), "b": (0, 30, True)}


def test_without_chunked_prefill_the_budget_must_hold_a_whole_context():
    with pytest.raises(ConfigError, match="max_num_batched_tokens is 32, must be at least"):
        make_scheduler(budget=32, max_model_len=64, enable_chunked_prefill=False)


def test_no_more_sequences_run_than_there_are_seats():
    scheduler, model = make_scheduler(seats=2)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)], max_tokens=2), 0.0)
    step(scheduler, model)
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    step(scheduler, model)
    assert shape(scheduler.schedule(0.0)) == {"c": (0, 1, True)}


def test_a_shared_prefix_is_computed_once():
    scheduler, model = make_scheduler()
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
    scheduler, model = make_scheduler()
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8)), max_tokens=1), 0.0)
        batch = scheduler.schedule(0.0)
        complete(scheduler, model, batch)
    assert shape(batch) == {"b": (4, 4, True)}


def test_a_cached_answer_is_a_prefix_of_the_next_turn():
    scheduler, model = make_scheduler()
    first = make_sequence("first", [1, 2, 3], max_tokens=6)
    scheduler.add(first, 0.0)
    run_to_end(scheduler, model)
    scheduler.add(make_sequence("next", [*first.token_ids, 5, 6]), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"next": (8, 3, True)}


def test_a_sequence_that_skips_reading_the_prefix_cache_still_writes_it():
    scheduler, model = make_scheduler()
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
    scheduler, _ = make_scheduler()
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8))), 0.0)
    batch = scheduler.schedule(0.0)
    assert shape(batch) == {"a": (0, 8, True), "b": (0, 8, True)}
    a, b = (item.sequence.block_ids for item in batch.sequences)
    assert set(a).isdisjoint(b)


def test_without_prefix_caching_nothing_is_shared():
    scheduler, model = make_scheduler(prefix=False)
    for name in "ab":
        scheduler.add(make_sequence(name, list(range(8)), max_tokens=1), 0.0)
        batch = scheduler.schedule(0.0)
        assert shape(batch) == {name: (0, 8, True)}
        complete(scheduler, model, batch)
    assert scheduler.reset_prefix_cache()


def test_the_prefix_cache_is_reset_only_while_no_block_is_in_use():
    scheduler, model = make_scheduler()
    scheduler.add(make_sequence("a", list(range(8)), max_tokens=2), 0.0)
    step(scheduler, model)
    assert not scheduler.reset_prefix_cache()
    run_to_end(scheduler, model)
    assert scheduler.reset_prefix_cache()
    scheduler.add(make_sequence("b", list(range(8))), 0.0)
    assert shape(scheduler.schedule(0.0)) == {"b": (0, 8, True)}


def test_a_continuation_goes_on_from_its_output_tokens():
    """A request that is replayed after a crash has output tokens when it is added."""
    scheduler, model = make_scheduler()
    whole = make_sequence("whole", [1, 2, 3], max_tokens=6)
    scheduler.add(whole, 0.0)
    run_to_end(scheduler, model)
    rest = make_sequence("rest", whole.token_ids[:3], max_tokens=6)
    rest.token_ids += whole.token_ids[3:7]
    scheduler.add(rest, 0.0)
    assert run_to_end(scheduler, model)["rest"] == whole.token_ids[7:]


def test_prompt_logprobs_come_complete_with_the_first_output():
    scheduler, model = make_scheduler(budget=4)
    prompt = [1, 5, 2, 8, 3, 7, 3, 9, 6]
    params = SamplingParams(max_tokens=3, prompt_logprobs=0)
    scheduler.add(make_sequence("a", prompt, params, max_tokens=3), 0.0)
    outputs = [output for _ in range(5) for output in step(scheduler, model)]
    assert outputs[0].prompt_logprobs == tuple(score(prompt, i) for i in range(1, len(prompt)))
    assert [output.prompt_logprobs for output in outputs[1:]] == [(), ()]


def test_prompt_logprobs_are_owed_even_if_the_prefix_cache_may_be_read():
    scheduler, model = make_scheduler()
    prompt = list(range(9))
    scheduler.add(make_sequence("a", prompt, max_tokens=1), 0.0)
    run_to_end(scheduler, model)
    params = SamplingParams(max_tokens=1, prompt_logprobs=0, skip_reading_prefix_cache=False)
    scheduler.add(make_sequence("b", prompt, params, max_tokens=1), 0.0)
    (output,) = step(scheduler, model)
    assert len(output.prompt_logprobs) == 8


def test_an_error_ends_one_sequence_and_its_blocks_are_not_trusted():
    scheduler, model = make_scheduler()
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
    scheduler, _ = make_scheduler()
    sequence = make_sequence("a", [1])
    scheduler.add(sequence, 0.0)
    output = scheduler.fail(sequence, "no")
    assert output is not None
    assert (output.finish_reason, output.error, output.is_first) == ("error", "no", True)
    assert scheduler.fail(sequence, "no") is None
    assert not scheduler.has_work


def test_a_batch_whose_step_failed_can_be_scheduled_again():
    scheduler, model = make_scheduler()
    scheduler.add(make_sequence("a", [1] * 9), 0.0)
    assert shape(scheduler.schedule(0.0)) == shape(scheduler.schedule(0.0))
    run_to_end(scheduler, model)
