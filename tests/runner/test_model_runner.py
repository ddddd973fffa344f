"""The runner as a whole: what it reports, faults of one sequence, prompt logprobs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.checkpoints import VOCAB_SIZE, Checkpoint
from tests.runner.driver import Driver, make_runner, outputs
from wheelpit.config import CacheConfig, EngineConfig, ModelOptions
from wheelpit.errors import ConfigError
from wheelpit.request import SamplingParams
from wheelpit.runner import model_runner
from wheelpit.runner.model_runner import ModelRunner
from wheelpit.runner.sampler import NOT_FINITE
from wheelpit.scheduling.sequence import Sequence

POISON = VOCAB_SIZE - 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Checkpoint("runner", "Llama").save(tmp_path)
    return tmp_path


def poison(folder: Path) -> None:
    """Make one token's embedding NaN."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][POISON] = torch.nan
    save_file(tensors, folder / "model.safetensors")


def test_it_says_what_it_resolved_and_how_long_each_phase_took(folder: Path) -> None:
    phases: dict[str, float] = {}
    config = EngineConfig(
        model=ModelOptions(folder=str(folder), max_model_len=64, dtype="bfloat16"),
        cache=CacheConfig(block_size=4, num_blocks=20),
    )
    runner = ModelRunner(config, on_phase=phases.__setitem__)
    assert list(phases) == ["load", "warm up"]
    assert all(seconds > 0 for seconds in phases.values())
    assert (runner.dtype, runner.device) == ("bfloat16", "cpu")
    assert (runner.num_blocks, runner.block_size) == (20, 4)
    assert runner.vocab_size == VOCAB_SIZE
    assert runner.forward_s == 0.0
    driver = Driver(runner)
    driver.step([(driver.add([3, 4, 5]), 3)])
    assert runner.forward_s > 0.0


def test_auto_measures_and_says_what_it_chose(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="wheelpit"):
        runner = make_runner(folder, dtype="auto")
    assert runner.dtype in ("float32", "bfloat16")
    told = [record.getMessage() for record in caplog.records]
    assert sum(message.startswith(f"dtype auto: {runner.dtype}") for message in told) == 1


def test_a_device_that_is_not_there_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = EngineConfig(model=ModelOptions(folder=str(folder), max_model_len=64, device="cuda"))
    with pytest.raises(ConfigError, match="device is 'cuda'"):
        ModelRunner(config)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_agree_with_float32_on_clear_choices(folder: Path, dtype: str) -> None:
    """Prompt logprobs agree to the dtype's precision, decodes and chunks alike."""
    params = SamplingParams(temperature=0.0, prompt_logprobs=0)
    scores = []
    for name in ("float32", dtype):
        driver = Driver(make_runner(folder, dtype=name))
        sequence = driver.add([3 + i % 50 for i in range(60)], params)
        found = [driver.step([(sequence, n)])[0] for n in (20, 1, 1, 1, 37)]
        scores.append([t.logprobs[0] for answer in found for t in answer.prompt_logprobs])
    assert len(scores[0]) == 59
    assert scores[1] == pytest.approx(scores[0], abs=0.6)


def test_a_poisoned_sequence_ends_alone(folder: Path) -> None:
    poison(folder)
    driver = Driver(make_runner(folder))
    healthy = driver.add([3, 4, 5])
    ill = driver.add([3, POISON, 5])
    answers = driver.step([(ill, 3), (healthy, 3)])
    assert answers[0].error == NOT_FINITE
    assert answers[0].token_id is None
    assert answers[1].error is None
    alone = Driver(make_runner(folder))
    expected = alone.add([3, 4, 5])
    alone.finish([expected], 1)
    assert outputs(healthy) == outputs(expected)


@pytest.mark.parametrize("prompt_length", [1, 3, 8, 9, 13])
def test_blocks_of_a_poisoned_sequence_can_be_used_again(folder: Path, prompt_length: int) -> None:
    """What is left in a reused block is masked, but 0 * NaN is NaN: it must be cleared."""
    poison(folder)
    prompt = [3 + i for i in range(prompt_length)]
    clean = Driver(make_runner(folder))
    expected = clean.add(prompt)
    clean.finish([expected], 20)

    driver = Driver(make_runner(folder))
    ill = driver.add([POISON] * 40)
    driver.step([(ill, 40)])
    neighbour = driver.add([9, 8])
    sequence = driver.add(prompt)
    sequence.block_ids = ill.block_ids
    driver.finish([sequence, neighbour], 20)
    assert outputs(sequence) == outputs(expected)


def score_prompt(driver: Driver, sequence: Sequence, chunks: list[int]) -> list[list[int]]:
    found = []
    for num_tokens in chunks:
        answer = driver.step([(sequence, num_tokens)])[0]
        found += [scores.token_ids for scores in answer.prompt_logprobs]
    return found


def test_prompt_logprobs_score_each_next_prompt_token_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_runner, "SCORED_ROWS", 4)
    driver = Driver(make_runner(folder))
    params = SamplingParams(temperature=0.0, prompt_logprobs=2)
    prompt = [3 + 7 * i % 90 for i in range(30)]
    whole = score_prompt(driver, driver.add(prompt, params), [30])
    cut = score_prompt(driver, driver.add(prompt, params), [1, 9, 20])
    assert [ids[0] for ids in whole] == prompt[1:]
    assert all(len(ids) == 3 for ids in whole)
    assert cut == whole


def test_output_tokens_of_a_resumed_sequence_are_not_scored_as_prompt(folder: Path) -> None:
    driver = Driver(make_runner(folder))
    sequence = driver.add([3, 4, 5], SamplingParams(temperature=0.0, prompt_logprobs=0))
    sequence.token_ids += [6, 7]
    answer = driver.step([(sequence, 5)])[0]
    assert [scores.token_ids for scores in answer.prompt_logprobs] == [[4], [5]]


def test_one_token_contexts_work(folder: Path) -> None:
    driver = Driver(make_runner(folder, max_model_len=2, num_blocks=400, block_size=1))
    sequence = driver.add([3])
    driver.finish([sequence], 1)
    assert len(outputs(sequence)) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_for_a_step_is_a_memory_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    driver = Driver(make_runner(folder))

    def fail(inputs: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(driver.runner, "execute", fail)
        with pytest.raises(MemoryError, match="allocate"):
            driver.step([(driver.add([3, 4, 5]), 3)])
