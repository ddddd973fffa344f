"""EngineCore with a fake runner, in this process."""

from __future__ import annotations

import msgspec

from tests.fakes import FakeRunner, ManualClock
from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.engine.core import EngineCore
from wheelpit.engine.messages import AddRequest, StepBegins
from wheelpit.request import SamplingParams
from wheelpit.scheduling.deadlines import Deadlines


class RaisingRunner(FakeRunner):
    """Raises for a step that holds one of the named sequences."""

    def __init__(self, *names, **options):
        super().__init__(**options)
        self.names = set(names)

    def run(self, batch):
        if self.names & {scheduled.sequence.request_id for scheduled in batch.sequences}:
            raise RuntimeError("boom")
        return super().run(batch)


def make_core(runner=None, clock=None):
    config = EngineConfig(
        model=ModelOptions(folder="", max_model_len=256),
        cache=CacheConfig(),
        scheduler=SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=64),
    )
    return EngineCore(config, runner or FakeRunner(), clock or ManualClock())


def request(name, prompt, max_tokens=4, **params):
    return AddRequest(name, prompt, SamplingParams(**params), max_tokens, seed=0)


def run(core):
    """Step until idle; the outputs of each request in order."""
    outputs = {}
    while core.has_work:
        for output in core.step().outputs:
            outputs.setdefault(output.request_id, []).append(output)
    return outputs


def test_a_request_runs_to_its_end():
    core = make_core()
    core.add(request("a", [5, 6, 7]))
    outputs = run(core)["a"]
    assert [t for o in outputs for t in o.token_ids] == core.runner.expected([5, 6, 7], 4)
    assert [o.finish_reason for o in outputs] == [None, None, None, "length"]
    assert [o.num_cached_tokens for o in outputs] == [0, None, None, None]
    stats = core.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_cache_usage) == (0, 0, 0.0)
    assert stats.num_steps == 4


def test_a_raising_step_ends_only_the_request_at_fault():
    core = make_core(RaisingRunner("bad"))
    core.add(request("good", [5, 6]))
    core.add(request("bad", [7, 8]))
    outputs = run(core)
    assert outputs["good"][-1].finish_reason == "length"
    assert len(outputs["bad"]) == 1
    assert outputs["bad"][0].finish_reason == "error"
    assert "RuntimeError: boom" in outputs["bad"][0].error


def test_a_request_that_can_never_fit_ends_with_the_limit_in_its_error():
    core = make_core(FakeRunner(num_blocks=2))
    core.add(request("big", [5] * 40))
    assert core.has_work
    (output,) = run(core)["big"]
    assert output.finish_reason == "error"
    assert "32" in output.error


def test_abort_of_unknown_and_known_requests():
    core = make_core()
    core.abort(["nobody"])
    core.add(request("a", [5, 6], max_tokens=100))
    core.step()
    core.abort(["a"])
    assert not core.has_work
    assert core.stats().kv_cache_usage == 0.0


def test_the_queue_time_is_from_arrival_to_the_first_scheduling():
    clock = ManualClock()
    core = make_core(clock=clock)
    core.add(request("a", [5] * 100))
    clock.advance(2.0)
    core.step()  # a first chunk of 64
    clock.advance(3.0)
    (output,) = core.step().outputs
    assert output.queue_s == 2.0


def test_a_prompt_of_one_token_has_prompt_logprobs_too():
    """Nothing predicts its only token, and so the caller got None instead of [None]."""
    core = make_core()
    core.add(request("a", [5], prompt_logprobs=1))
    assert [o.prompt_logprobs for o in run(core)["a"]] == [[], None, None, None]


def test_prompt_logprobs_come_once_with_the_first_output():
    core = make_core()
    core.add(request("a", list(range(5, 105)), prompt_logprobs=1))
    outputs = run(core)["a"]
    assert [o.prompt_logprobs is not None for o in outputs] == [True, False, False, False]
    scored = [position.token_ids[0] for position in outputs[0].prompt_logprobs]
    assert scored == list(range(6, 105))


class SmallMemoryRunner(FakeRunner):
    """Has memory for steps of so many tokens."""

    def __init__(self, most_tokens, **options):
        super().__init__(**options)
        self.most_tokens = most_tokens
        self.refused = []

    def run(self, batch):
        if batch.num_tokens > self.most_tokens:
            self.refused.append(batch.num_tokens)
            raise MemoryError(f"no room for {batch.num_tokens} tokens")
        return super().run(batch)


def test_out_of_memory_makes_steps_smaller_and_costs_nobody_a_token():
    core = make_core(SmallMemoryRunner(10))
    prompts = {f"r{i}": [5 + i] * 20 for i in range(6)}
    for name, prompt in prompts.items():
        core.add(request(name, prompt))
    outputs = run(core)
    for name, prompt in prompts.items():
        tokens = [t for o in outputs[name] for t in o.token_ids]
        assert tokens == core.runner.expected(prompt, 4)
    assert core.runner.refused[0] == 64


def test_steps_grow_again_after_a_shortage():
    core = make_core(SmallMemoryRunner(10))
    core.add(request("a", [5] * 60))
    run(core)
    core.runner.most_tokens = 1000
    for i in range(20):
        core.add(request(f"b{i}", [6 + i] * 60))
    sizes = []
    while core.has_work:
        core.step()
        sizes.append(core.stats().num_scheduled_tokens)
    assert max(sizes) == 64


def test_a_sequence_that_not_even_the_smallest_step_has_memory_for_ends_with_an_error():
    core = make_core(SmallMemoryRunner(0))
    core.add(request("a", [5] * 20))
    (output,) = run(core)["a"]
    assert output.finish_reason == "error"
    assert "MemoryError: no room for 1 tokens" in output.error


def test_a_request_goes_on_from_what_another_engine_generated():
    core = make_core()
    expected = core.runner.expected([5, 6, 7], 6)
    whole = request("a", [5, 6, 7], max_tokens=6)
    core.add(msgspec.structs.replace(whole, output_token_ids=expected[:4]))
    outputs = run(core)["a"]
    assert [t for o in outputs for t in o.token_ids] == expected[4:]
    assert outputs[-1].finish_reason == "length"


def test_steps_of_many_tokens_are_announced():
    announced = []
    config = EngineConfig(
        model=ModelOptions(folder="", max_model_len=2048),
        scheduler=SchedulerConfig(max_num_seqs=8, max_num_batched_tokens=600),
    )
    runner = FakeRunner()
    core = EngineCore(config, runner, ManualClock(), announced.append)
    core.add(request("a", [5] * 1000))
    run(core)
    assert announced == [StepBegins(600, ["a"]), StepBegins(400)]


def test_a_missed_deadline_is_reported_before_the_next_step():
    clock = ManualClock()
    core = make_core(clock=clock)
    core.add(msgspec.structs.replace(request("a", [5, 6], 50), deadlines=Deadlines(total_s=9.0)))
    (first,) = core.step().outputs
    assert core.expire() is None
    clock.advance(9.0)
    expired = core.expire()
    assert [(o.finish_reason, o.stop_reason) for o in expired.outputs] == [("abort", "timeout")]
    assert (expired.stats.num_running, expired.stats.num_timeouts) == (0, 1)
    assert not core.has_work
    assert first.token_ids


def test_the_queue_is_told_now_and_then_and_starts_at_once():
    clock = ManualClock(1.0)
    core = make_core(clock=clock)
    for i in range(11):
        core.add(request(f"r{i}", [5, 6], 50))
    first, second = core.step(), core.step()
    assert first.started == [f"r{i}" for i in range(8)]
    assert first.queue == ["r8", "r9", "r10"]
    assert (second.started, second.queue) == ([], None)
    clock.advance(1.0)
    assert core.step().queue == ["r8", "r9", "r10"]
