"""EngineCore with a fake runner, in this process."""

from __future__ import annotations

from tests.fakes import FakeRunner, ManualClock
from wheelpit.config import CacheConfig, EngineConfig, ModelOptions, SchedulerConfig
from wheelpit.engine.core import EngineCore
from wheelpit.engine.messages import AddRequest
from wheelpit.request import SamplingParams


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


def test_prompt_logprobs_come_once_with_the_first_output():
    core = make_core()
    core.add(request("a", list(range(5, 105)), prompt_logprobs=1))
    outputs = run(core)["a"]
    assert [o.prompt_logprobs is not None for o in outputs] == [True, False, False, False]
    scored = [position.token_ids[0] for position in outputs[0].prompt_logprobs]
    assert scored == list(range(6, 105))
