"""A single sequence's step gives the same, bit by bit, recorded or not."""

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
from wheelpit.runner.recorded_decode import RecordedDecode

PLAIN_ROWS = ComputePlan(((1, 1),), has_plain_rows=True)
SCORED = SamplingParams(temperature=0.0, max_tokens=None, logprobs=4)


def make_recording_runner(folder: Path, **options: object) -> ModelRunner:
    return make_runner(folder, compute_plan=PLAIN_ROWS, **{"dtype": "bfloat16", **options})


def watch(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch, *, is_allowed: bool) -> list[bool]:
    """Return a list that tells of each step whether it could be replayed."""
    seen: list[bool] = []

    def suits(self: RecordedDecode, inputs: ModelInputs) -> bool:
        seen.append(original(self, inputs))
        return seen[-1] and is_allowed

    original = RecordedDecode.suits
    monkeypatch.setattr(RecordedDecode, "suits", suits)
    return seen


def decode(runner: ModelRunner) -> tuple[list[list[int]], list[object]]:
    """Two sequences by turns, then both at once, then one alone again; past many a block's end."""
    driver = Driver(runner)
    one, other = driver.add([5, 6, 7, 8, 9], SCORED), driver.add([3, 4], SCORED)
    tops: list[object] = []
    for work in (
        [(one, 5)],
        *[[(one, 1)]] * 9,
        [(other, 2)],
        *([(one, 1)], [(other, 1)]) * 9,
        *[[(one, 1), (other, 1)]] * 2,
        *[[(other, 1)]] * 12,
    ):
        tops += [answer.logprobs for answer in driver.step(work)]
    return [outputs(one), outputs(other)], tops


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.name)
def test_a_recorded_step_gives_what_it_would_have_given(
    kernel_library: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint.save(tmp_path)
    runner = make_recording_runner(tmp_path)
    found = []
    for is_allowed in (True, False):
        with monkeypatch.context() as patch:
            seen = watch(runner, patch, is_allowed=is_allowed)
            found.append(decode(runner))
        assert sum(seen) == 9 + 18 + 12
    assert found[0] == found[1]


def test_float32_is_not_recorded(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, a sequence gets the same alone as in company."""
    CHECKPOINTS[0].save(tmp_path)
    runner = make_recording_runner(tmp_path, dtype="float32")
    seen = watch(runner, monkeypatch, is_allowed=True)
    decode(runner)
    assert not any(seen)


def test_a_model_with_large_layers_is_not_recorded(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECKPOINTS[0].save(tmp_path)
    expected = decode(make_recording_runner(tmp_path))[0]
    monkeypatch.setattr(linear, "MOST_KEPT_BYTES", 48 * 100)
    runner = make_recording_runner(tmp_path)
    seen = watch(runner, monkeypatch, is_allowed=True)
    tokens = decode(runner)[0]
    assert not any(seen)
    assert [len(each) for each in tokens] == [len(each) for each in expected]


def test_a_step_of_several_rows_or_none_that_decodes_is_not_one(
    kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHECKPOINTS[0].save(tmp_path)
    runner = make_recording_runner(tmp_path)
    seen = watch(runner, monkeypatch, is_allowed=True)
    driver = Driver(runner)
    one, other = driver.add([5, 6, 7]), driver.add([4])
    driver.step([(one, 3), (other, 1)])
    driver.step([(one, 1), (other, 1)])
    driver.step([(one, 1)])
    assert seen == [False, False, True]


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
