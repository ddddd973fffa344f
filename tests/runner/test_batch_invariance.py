"""A request's tokens do not depend on how its work was batched, chunked, repeated or cached."""

from __future__ import annotations

import random

import pytest

from tests.parity.checkpoints import VOCAB_SIZE, Checkpoint
from tests.runner.driver import GREEDY, Driver, make_runner, outputs
from wheelpit.request import SamplingParams
from wheelpit.runner.model_runner import ModelRunner
from wheelpit.scheduling.sequence import Sequence

NUM_OUTPUTS = 40
SEEDED = SamplingParams(temperature=0.9, top_p=0.95, seed=11)
KINDS = {"greedy": GREEDY, "seeded": SEEDED}


@pytest.fixture(scope="module", params=["Llama", "Qwen3"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    folder = tmp_path_factory.mktemp("model")
    changes = {"head_dim": 16} if request.param == "Qwen3" else {}
    Checkpoint("invariance", request.param, changes).save(folder)
    return make_runner(folder)


def prompt(length: int, seed: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(3, VOCAB_SIZE) for _ in range(length)]


@pytest.fixture(params=KINDS)
def params(request: pytest.FixtureRequest) -> SamplingParams:
    return KINDS[request.param]


def run_alone(runner: ModelRunner, tokens: list[int], params: SamplingParams) -> list[int]:
    driver = Driver(runner)
    sequence = driver.add(tokens, params)
    driver.finish([sequence], NUM_OUTPUTS)
    return outputs(sequence)


def test_sixteen_together_give_what_each_gives_alone(
    runner: ModelRunner, params: SamplingParams
) -> None:
    driver = Driver(runner)
    prompts = [prompt(1 + (13 * i) % 61, i) for i in range(16)]
    together = [driver.add(tokens, params) for tokens in prompts]
    driver.finish(together, NUM_OUTPUTS)
    for tokens, sequence in zip(prompts, together, strict=True):
        assert outputs(sequence) == run_alone(runner, tokens, params)


def test_requests_may_come_and_go_at_any_step(runner: ModelRunner, params: SamplingParams) -> None:
    driver = Driver(runner)
    source = random.Random(5)
    prompts = [prompt(source.randrange(1, 70), i) for i in range(12)]
    waiting = [driver.add(tokens, params) for tokens in prompts]
    everyone = list(waiting)
    running: list[Sequence] = []
    while waiting or running:
        if waiting and source.random() < 0.4:
            running.append(waiting.pop())
        work = []
        for sequence in running:
            gap = sequence.num_tokens - sequence.num_computed_tokens
            work.append((sequence, source.randint(1, gap)))
        source.shuffle(work)
        if work:
            driver.step(work)
        running = [s for s in running if s.num_output_tokens < NUM_OUTPUTS]
    for tokens, sequence in zip(prompts, everyone, strict=True):
        assert outputs(sequence) == run_alone(runner, tokens, params)


@pytest.mark.parametrize("chunk", [1, 2, 7, 8, 9, 30])
def test_a_prompt_may_be_cut_into_chunks(
    runner: ModelRunner, params: SamplingParams, chunk: int
) -> None:
    tokens = prompt(45, 3)
    driver = Driver(runner)
    sequence = driver.add(tokens, params)
    while sequence.num_computed_tokens < 45:
        driver.step([(sequence, min(chunk, 45 - sequence.num_computed_tokens))])
    driver.finish([sequence], NUM_OUTPUTS)
    assert outputs(sequence) == run_alone(runner, tokens, params)


def test_a_preempted_request_goes_on_where_it_was(
    runner: ModelRunner, params: SamplingParams
) -> None:
    tokens = prompt(29, 4)
    driver = Driver(runner)
    sequence = driver.add(tokens, params)
    driver.finish([sequence], 17)
    sequence.block_ids = []
    sequence.num_computed_tokens = 0
    driver.finish([sequence], NUM_OUTPUTS)
    assert outputs(sequence) == run_alone(runner, tokens, params)


def test_a_prefix_in_the_cache_need_not_be_computed(
    runner: ModelRunner, params: SamplingParams
) -> None:
    tokens = prompt(41, 6)
    driver = Driver(runner)
    first = driver.add(tokens, params)
    driver.finish([first], NUM_OUTPUTS)
    second = driver.add(tokens, params)
    num_shared = 40 // runner.block_size
    second.block_ids = first.block_ids[:num_shared]
    second.num_computed_tokens = num_shared * runner.block_size
    driver.finish([second], NUM_OUTPUTS)
    assert outputs(second) == outputs(first)


def test_a_step_may_be_repeated(runner: ModelRunner, params: SamplingParams) -> None:
    driver = Driver(runner)
    sequences = [driver.add(prompt(20 + i, i), params) for i in range(3)]
    for _ in range(10):
        work = [(s, s.num_tokens - s.num_computed_tokens) for s in sequences]
        first = driver.step(work)
        for sequence, (_, num_tokens) in zip(sequences, work, strict=True):
            sequence.token_ids.pop()
            sequence.num_computed_tokens -= num_tokens
        assert driver.step(work) == first


def test_without_chunks_at_their_end_nothing_is_sampled(runner: ModelRunner) -> None:
    driver = Driver(runner)
    sequence = driver.add(prompt(20, 1))
    answer = driver.step([(sequence, 5)])[0]
    assert answer.token_id is None
    assert answer.error is None
