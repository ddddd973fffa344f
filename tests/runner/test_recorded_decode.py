"""A step of few sequences gives the same, bit by bit, recorded or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.checkpoints import CHECKPOINTS, Checkpoint
from tests.runner.driver import Driver, make_runner, outputs
from wheelpit.config import ComputePlan
from wheelpit.layers import linear
from wheelpit.request import SamplingParams
from wheelpit.runner.inputs import ModelInputs
from wheelpit.runner.model_runner import ModelRunner
from wheelpit.runner.recorded_decode import RecordedDecodes

PLAIN_ROWS = ComputePlan(((1, 1),), plain_rows=3)
SCORED = SamplingParams(temperature=0.0, max_tokens=None, logprobs=4)


def make_recording_runner(folder: Path, **options: object) -> ModelRunner:
    return make_runner(folder, compute_plan=PLAIN_ROWS, **{"dtype": "bfloat16", **options})


def watch(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that tells of each step whether it was a recorded one."""
    seen: list[bool] = []
    run = runner._recorded.run

    def watched(inputs: ModelInputs) -> torch.Tensor | None:
        hidden = run(inputs)
        seen.append(hidden is not None)
        return hidden

    monkeypatch.setattr(runner._recorded, "run", watched)
    return seen


def decode(runner: ModelRunner) -> tuple[list[list[int]], list[object]]:
    """Sequences by turns, then together, then one alone again; past many a block's end."""
    driver = Driver(runner)
    one, other, third = (driver.add(prompt, SCORED) for prompt in ([5, 6, 7, 8, 9], [3, 4], [7]))
    tops: list[object] = []
    for work in (
        [(one, 5)],
        *[[(one, 1)]] * 9,
        [(other, 2)],
        *([(one, 1)], [(other, 1)]) * 9,
        *[[(one, 1), (other, 1)]] * 5,
        *[[(third, 1), (one, 1), (other, 1)]] * 9,
        *[[(other, 1), (one, 1)]] * 12,
        *[[(other, 1)]] * 12,
    ):
        tops += [answer.logprobs for answer in driver.step(work)]
    return [outputs(sequence) for sequence in (one, other, third)], tops


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.name)
def test_a_recorded_step_gives_what_it_would_have_given(
    kernel_library: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint.save(tmp_path)
    runner = make_recording_runner(tmp_path)
    seen = watch(runner, monkeypatch)
    recorded = decode(runner)
    assert seen == [False] + [True] * 9 + [False] + [True] * (18 + 5 + 9 + 12 + 12)
    monkeypatch.setattr(RecordedDecodes, "run", lambda *arguments: None)
    assert recorded == decode(make_recording_runner(tmp_path))


def test_a_sequence_gets_the_same_alone_and_beside_others(
    kernel_library: Path, tmp_path: Path
) -> None:
    """Even in bfloat16, as long as they are few."""
    CHECKPOINTS[0].save(tmp_path)
    answers = []
    for num_others in (0, 1, 2):
        driver = Driver(make_recording_runner(tmp_path))
        one, *others = (driver.add([5 + n, 6, 7, 8], SCORED) for n in range(1 + num_others))
        tops: list[object] = []
        for sequence in (one, *others):
            driver.step([(sequence, 4)])
        for _ in range(20):
            tops.append(driver.step([(sequence, 1) for sequence in (*others, one)])[-1].logprobs)
        answers.append((outputs(one), tops))
    assert answers[0] == answers[1]
    assert answers[0] == answers[2]


def test_float32_is_not_recorded(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, a sequence gets the same alone as in company."""
    CHECKPOINTS[0].save(tmp_path)
    runner = make_recording_runner(tmp_path, dtype="float32")
    seen = watch(runner, monkeypatch)
    decode(runner)
    assert not any(seen)


def test_a_model_with_large_layers_is_not_recorded(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECKPOINTS[0].save(tmp_path)
    expected = decode(make_recording_runner(tmp_path))[0]
    monkeypatch.setattr(linear, "MOST_KEPT_BYTES", 48 * 100)
    runner = make_recording_runner(tmp_path)
    seen = watch(runner, monkeypatch)
    tokens = decode(runner)[0]
    assert not any(seen)
    assert [len(each) for each in tokens] == [len(each) for each in expected]


def test_too_many_rows_and_prompts_are_not_recorded(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECKPOINTS[0].save(tmp_path)
    runner = make_recording_runner(tmp_path)
    seen = watch(runner, monkeypatch)
    driver = Driver(runner)
    four = [driver.add([5, index]) for index in range(4)]
    driver.step([(four[0], 2), (four[1], 1)])
    driver.step([(four[1], 1), (four[2], 2), (four[3], 2)])
    for number in (4, 3, 4, 1):
        driver.step([(sequence, 1) for sequence in four[:number]])
    assert seen == [False, False, False, True, False, True]


def test_a_fault_in_the_inputs_stays_in_its_step(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a number in one sequence's cache is nothing to the next sequence."""
    CHECKPOINTS[0].save(tmp_path)
    runner = make_recording_runner(tmp_path)
    driver = Driver(runner)
    bad, good = driver.add([5, 6, 7]), driver.add([5, 6, 7])
    driver.step([(bad, 3)])
    runner._cache.memory[:, bad.block_ids[0]] = torch.nan
    assert driver.step([(bad, 1)])[0].error is not None
    driver.step([(good, 3)])
    assert driver.step([(good, 1)])[0].error is None
