"""Who is refused, who starts next, and when."""

import pytest

from tests.scheduling.checked_model import (
    BLOCK_SIZE,
    generate,
    make_scheduler,
    make_sequence,
    run_to_end,
    shape,
    step,
)
from wheelpit.errors import ValidationError
from wheelpit.scheduling.batch import SampledToken


def test_priority_starts_the_smallest_first_and_ties_by_arrival_then_order_of_adding():
    scheduler, _ = make_scheduler(seats=1, policy="priority")
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
    scheduler, _ = make_scheduler(seats=1)
    scheduler.add(make_sequence("first", [1], priority=9), 0.0)
    scheduler.add(make_sequence("urgent", [1], priority=0), 0.0)
    assert set(shape(scheduler.schedule(0.0))) == {"first"}


def test_a_sequence_starts_only_when_its_whole_prompt_fits():
    scheduler, model = make_scheduler(num_blocks=7, long_prefill_token_threshold=8)
    scheduler.add(make_sequence("long", list(range(16)), max_tokens=2), 0.0)
    scheduler.add(make_sequence("short", [9] * 9), 0.0)
    # 4 blocks are promised to the first, though it has only 2 of them yet, and one
    # more to grow into; the second needs 3.
    assert set(shape(scheduler.schedule(0.0))) == {"long"}
    assert scheduler.stats().num_free_blocks == 5
    run_to_end(scheduler, model)
    assert scheduler.stats().num_preemptions == 0


def test_a_start_leaves_a_free_block_for_each_running_sequence():
    scheduler, _ = make_scheduler(num_blocks=5)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 3), 0.0)
    # Each needs 1; when the third starts, 3 are free and 2 are for those that run.
    assert set(shape(scheduler.schedule(0.0))) == {"a", "b", "c"}
    scheduler, _ = make_scheduler(num_blocks=4)
    for name in "abc":
        scheduler.add(make_sequence(name, [ord(name)] * 3), 0.0)
    assert set(shape(scheduler.schedule(0.0))) == {"a", "b"}


def test_cached_blocks_that_a_start_revives_are_not_counted_as_free():
    scheduler, model = make_scheduler(num_blocks=5)
    scheduler.add(make_sequence("a", list(range(8)), max_tokens=1), 0.0)
    run_to_end(scheduler, model)
    scheduler.add(make_sequence("b", [7] * 7, max_tokens=9), 0.0)
    step(scheduler, model)
    scheduler.add(make_sequence("c", [*range(8), 1]), 0.0)  # 2 cached and 1 new of 3 free
    assert set(shape(scheduler.schedule(0.0))) == {"b"}
    scheduler.check()


def test_a_single_sequence_may_fill_the_whole_cache_and_then_ends():
    scheduler, model = make_scheduler(num_blocks=3, max_model_len=64)
    sequence = make_sequence("a", [1, 2, 3], max_tokens=60)
    scheduler.add(sequence, 0.0)
    tokens = run_to_end(scheduler, model)
    assert tokens["a"] == generate(sequence, 3 * BLOCK_SIZE)[0]
    assert sequence.num_tokens == 3 * BLOCK_SIZE


def test_the_wait_in_the_queue_is_measured_with_the_callers_clock():
    scheduler, _ = make_scheduler(seats=1)
    sequence = make_sequence("a", [1])
    scheduler.add(sequence, 10.0)
    assert sequence.queue_s is None
    scheduler.schedule(12.5)
    assert sequence.queue_s == 2.5


@pytest.mark.parametrize(
    ("prompt", "num_blocks", "message"),
    [
        ([], 32, "prompt is empty"),
        ([1] * 64, 32, "limit is 64 by max_model_len"),
        ([1] * 32, 8, "limit is 32 by the KV cache"),
    ],
)
def test_a_sequence_that_can_never_run_is_refused(prompt, num_blocks, message):
    scheduler, _ = make_scheduler(num_blocks=num_blocks)
    with pytest.raises(ValidationError, match=message):
        scheduler.add(make_sequence("a", prompt), 0.0)
    assert not scheduler.has_work
    scheduler.check()


def test_the_largest_prompt_that_fits_runs():
    scheduler, model = make_scheduler(num_blocks=8)
    scheduler.add(make_sequence("a", [1] * 31), 0.0)
    assert len(run_to_end(scheduler, model)["a"]) == 1


def test_a_request_id_in_use_is_refused():
    scheduler, _ = make_scheduler()
    scheduler.add(make_sequence("a", [1]), 0.0)
    with pytest.raises(ValidationError, match="'a' is in use"):
        scheduler.add(make_sequence("a", [2]), 0.0)


def test_a_continuation_with_nothing_left_is_refused():
    scheduler, _ = make_scheduler()
    sequence = make_sequence("a", [1], max_tokens=2)
    sequence.token_ids += [5, 6]
    with pytest.raises(ValidationError, match="limit is 2: raise max_tokens"):
        scheduler.add(sequence, 0.0)
