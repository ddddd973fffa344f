"""What the start measures decides how many threads a step gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.runner.driver import Driver, make_runner
from tests.tiny_model import make_model_folder
from wheelpit.config import ComputePlan
from wheelpit.kernels.reference import TorchOperations
from wheelpit.models.config import ModelConfig
from wheelpit.runner import compute_plan, step_threads
from wheelpit.runner.compute_plan import MEASURED_ROWS, LayerProducts, make_plan
from wheelpit.runner.inputs import ModelInputs
from wheelpit.runner.model_runner import ModelRunner

Seconds = Callable[[int, int, bool], float]
"""(rows, threads, has_plain_rows) -> what the machine of a test takes."""


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    return ModelConfig.from_folder(make_model_folder(tmp_path))


def plan_on(
    monkeypatch: pytest.MonkeyPatch,
    model: ModelConfig,
    machine: Seconds,
    dtype: torch.dtype,
    *,
    can_record: bool = False,
) -> ComputePlan:
    def seconds(self: LayerProducts, rows: int) -> float:
        return machine(rows, torch.get_num_threads(), False)

    def seconds_of_plain_row(self: LayerProducts) -> float:
        return machine(1, torch.get_num_threads(), True)

    monkeypatch.setattr(LayerProducts, "seconds", seconds)
    monkeypatch.setattr(LayerProducts, "seconds_of_plain_row", seconds_of_plain_row)
    operations = TorchOperations()
    monkeypatch.setattr(operations, "can_record", can_record)
    return make_plan(model, dtype, operations)[0]


@pytest.mark.parametrize(
    ("machine", "threads"),
    [
        (lambda rows, threads, plain: 1.0, (1, 1, 1)),
        (lambda rows, threads, plain: 1.0 / threads, (4, 4, 4)),
        (lambda rows, threads, plain: 1.0 / min(2, threads), (2, 2, 2)),
        (lambda rows, threads, plain: 1.0 if rows == 1 else 1.0 / threads, (1, 4, 4)),
        (lambda rows, threads, plain: threads**-0.4, (1, 1, 1)),
        (lambda rows, threads, plain: threads**-0.6, (4, 4, 4)),
    ],
)
def test_more_threads_have_to_pay(
    four_threads: None,
    monkeypatch: pytest.MonkeyPatch,
    model: ModelConfig,
    machine: Seconds,
    threads: tuple[int, ...],
) -> None:
    plan = plan_on(monkeypatch, model, machine, torch.float32)
    assert plan.threads == tuple(zip(MEASURED_ROWS, threads, strict=True))
    assert not plan.has_plain_rows
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("is_plain_faster", [True, False])
def test_single_rows_of_bfloat16_take_the_faster_kernel(
    monkeypatch: pytest.MonkeyPatch, model: ModelConfig, is_plain_faster: bool
) -> None:
    def machine(rows: int, threads: int, has_plain_rows: bool) -> float:
        return 1.0 if has_plain_rows == is_plain_faster else 2.0

    assert plan_on(monkeypatch, model, machine, torch.bfloat16).has_plain_rows == is_plain_faster
    assert not plan_on(monkeypatch, model, machine, torch.float32).has_plain_rows


@pytest.mark.parametrize(("times", "is_worth_it"), [(1.2, True), (1.5, False)])
def test_a_plain_row_may_be_slower_if_it_can_be_recorded(
    monkeypatch: pytest.MonkeyPatch, model: ModelConfig, times: float, is_worth_it: bool
) -> None:
    def machine(rows: int, threads: int, has_plain_rows: bool) -> float:
        return times if has_plain_rows else 1.0

    plan = plan_on(monkeypatch, model, machine, torch.bfloat16, can_record=True)
    assert plan.has_plain_rows == is_worth_it
    assert not plan_on(monkeypatch, model, machine, torch.bfloat16).has_plain_rows


def test_a_layer_is_measured_by_slices_of_what_is_large(
    monkeypatch: pytest.MonkeyPatch, model: ModelConfig
) -> None:
    large = replace(model, hidden_size=64, intermediate_size=1_000_000)
    monkeypatch.setattr(compute_plan, "MOST_MEASURED_WEIGHTS", 64 * 100)
    taken: list[tuple[int, ...]] = []

    def fastest(product: partial[torch.Tensor]) -> float:
        taken.append(tuple(product.args[0].shape))
        return 1.0

    monkeypatch.setattr(compute_plan, "_fastest", fastest)
    products = LayerProducts(large, torch.float32, TorchOperations())
    # The gate and up projections count for all of their 2,000,000 outputs, of which 100 were made.
    assert products.seconds(3) == pytest.approx(1 + 1 + 20_000 + 64, rel=0.01)
    assert taken == [(3, 64), (3, model.num_heads * model.head_dim), (3, 64), (3, 1_000_000)]


def threads_of_steps(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that every step will add its number of threads to."""
    seen: list[int] = []
    execute = runner.execute

    def watched(inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return execute(inputs)

    monkeypatch.setattr(runner, "execute", watched)
    return seen


def test_steps_get_the_planned_threads_and_answers_do_not_change(
    four_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model_folder(tmp_path)
    answers = []
    for threads, expected in (
        (((1, 1), (4, 2)), [4, 1, 2]),
        (((1, 4), (4, 4)), [4, 4, 4]),
    ):
        runner = make_runner(folder, load_format="dummy", compute_plan=ComputePlan(threads, False))
        seen = threads_of_steps(runner, monkeypatch)
        driver = Driver(runner)
        one, other = driver.add([5, 6, 7, 8, 9]), driver.add([3, 4, 5])
        steps = ([(one, 5)], [(one, 1)], [(one, 1), (other, 3)])
        answers.append([[token.token_id for token in driver.step(step)] for step in steps])
        assert seen == expected
        assert torch.get_num_threads() == 4
    assert answers[0] == answers[1]


def test_much_to_attend_to_gets_all_threads(
    four_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner(
        make_model_folder(tmp_path),
        load_format="dummy",
        compute_plan=ComputePlan(((16, 1),), False),
    )
    seen = threads_of_steps(runner, monkeypatch)
    driver = Driver(runner)
    sequence = driver.add([3 + i % 9 for i in range(20)])
    for num_tokens in (20, 1):
        driver.step([(sequence, num_tokens)])
    monkeypatch.setattr(step_threads, "ONE_THREAD_ELEMENTS", 20)
    driver.step([(sequence, 1)])
    assert seen == [4, 1, 4]
