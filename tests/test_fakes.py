"""The fakes keep the promises that other tests build on."""

from tests.fakes import FakeRunner, ManualClock
from tests.scheduling.checked_model import make_sequence
from wheelpit.config import CacheConfig, SchedulerConfig
from wheelpit.request import SamplingParams
from wheelpit.scheduling.scheduler import Scheduler


def run_all(runner: FakeRunner, sequences, budget: int = 64):
    scheduler = Scheduler(
        SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=budget),
        CacheConfig(block_size=runner.block_size),
        runner.num_blocks,
        256,
    )
    for sequence in sequences:
        scheduler.add(sequence, 0.0)
    outputs = []
    while scheduler.has_work:
        batch = scheduler.schedule(0.0)
        outputs += scheduler.update(batch, runner.run(batch), 0.0)
    return outputs


def test_the_stream_of_a_request_can_be_predicted():
    runner = FakeRunner()
    sequences = [make_sequence(f"r{i}", [i, 5, 6], max_tokens=20) for i in range(8)]
    run_all(runner, sequences)
    for number, sequence in enumerate(sequences):
        assert sequence.token_ids[3:] == runner.expected([number, 5, 6], 20)


def test_the_stream_survives_chunks_and_preemptions():
    runner = FakeRunner(num_blocks=6, block_size=8)
    sequences = [make_sequence(f"r{i}", [i] * 15, max_tokens=20) for i in range(4)]
    run_all(runner, sequences, budget=5)
    assert sum(sequence.num_preemptions for sequence in sequences) > 0
    for number, sequence in enumerate(sequences):
        assert sequence.token_ids[15:] == runner.expected([number] * 15, 20)


def test_a_seed_changes_the_stream():
    runner = FakeRunner()
    assert runner.expected([1], 10, seed=1) != runner.expected([1], 10, seed=2)


def test_tokens_stay_in_the_range_that_was_asked_for():
    runner = FakeRunner(vocab_size=9, first_token=4)
    assert set(runner.expected([1], 200)) <= {4, 5, 6, 7, 8}


def test_chosen_requests_fail_and_the_others_do_not():
    runner = FakeRunner(failing={"bad"})
    outputs = run_all(runner, [make_sequence("bad", [1]), make_sequence("good", [1])])
    ends = {o.sequence.request_id: o.finish_reason for o in outputs if o.finish_reason}
    assert ends == {"bad": "error", "good": "length"}


def test_logprobs_have_the_chosen_token_first_and_then_the_top():
    params = SamplingParams(max_tokens=2, logprobs=3, prompt_logprobs=0)
    outputs = run_all(FakeRunner(), [make_sequence("r", [1, 2, 3], params, max_tokens=2)])
    for output in outputs:
        assert output.logprobs is not None
        assert output.logprobs.token_ids[0] == output.token_ids[0]
        assert len(output.logprobs.ranks) == 4
    assert [entry.token_ids for entry in outputs[0].prompt_logprobs] == [[2], [3]]


def test_each_step_adds_its_time_without_sleeping():
    runner = FakeRunner(step_s=0.5)
    run_all(runner, [make_sequence("r", [1], max_tokens=3)])
    assert (runner.num_steps, runner.forward_s) == (3, 1.5)


def test_a_manual_clock_stands_still_until_told():
    clock = ManualClock(5.0)
    assert clock() == clock() == 5.0
    clock.advance(1.5)
    assert clock() == 6.5
