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
"""(rows, threads, is it the plain layout?) -> what the machine of a test takes."""


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
    most_plain_rows: int = 8,
) -> ComputePlan:
    def seconds(self: LayerProducts, rows: int) -> float:
        return machine(rows, torch.get_num_threads(), False)

    def plain_seconds(self: LayerProducts, rows: int) -> float:
        return machine(rows, torch.get_num_threads(), True)

    monkeypatch.setattr(LayerProducts, "seconds", seconds)
    monkeypatch.setattr(LayerProducts, "plain_seconds", plain_seconds)
    operations = TorchOperations()
    monkeypatch.setattr(operations, "can_record", can_record)
    monkeypatch.setattr(operations, "most_plain_rows", most_plain_rows)
    return make_plan(model, dtype, operations)[0]


@pytest.mark.parametrize(
    ("machine", "threads"),
    [
        (lambda rows, threads, plain: 1.0, (1,) * 6),
        (lambda rows, threads, plain: 1.0 / threads, (4,) * 6),
        (lambda rows, threads, plain: 1.0 / min(2, threads), (2,) * 6),
        (lambda rows, threads, plain: 1.0 if rows < 8 else 1.0 / threads, (1, 1, 1, 4, 4, 4)),
        (lambda rows, threads, plain: threads**-0.3, (1,) * 6),
        (lambda rows, threads, plain: threads**-0.6, (4,) * 6),
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
    assert plan.plain_rows == 0
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("fast_until", "most", "expected"), [(0, 8, 0), (1, 8, 1), (3, 8, 2), (64, 8, 8), (64, 1, 1)]
)
def test_few_rows_of_bfloat16_take_the_faster_layout(
    monkeypatch: pytest.MonkeyPatch, model: ModelConfig, fast_until: int, most: int, expected: int
) -> None:
    def machine(rows: int, threads: int, is_plain: bool) -> float:
        return 1.0 if is_plain == (rows <= fast_until) else 2.0

    plan = plan_on(monkeypatch, model, machine, torch.bfloat16, most_plain_rows=most)
    assert plan.plain_rows == expected
    assert plan_on(monkeypatch, model, machine, torch.float32).plain_rows == 0


@pytest.mark.parametrize(("times", "expected"), [(1.2, 8), (1.5, 0)])
def test_plain_rows_may_be_slower_if_they_can_be_recorded(
    monkeypatch: pytest.MonkeyPatch, model: ModelConfig, times: float, expected: int
) -> None:
    def machine(rows: int, threads: int, is_plain: bool) -> float:
        return times if is_plain else 1.0

    plan = plan_on(monkeypatch, model, machine, torch.bfloat16, can_record=True)
    assert plan.plain_rows == expected
    assert plan_on(monkeypatch, model, machine, torch.bfloat16).plain_rows == 0


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
        runner = make_runner(folder, load_format="dummy", compute_plan=ComputePlan(threads, 0))
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
        compute_plan=ComputePlan(((16, 1),), 0),
    )
    seen = threads_of_steps(runner, monkeypatch)
    driver = Driver(runner)
    sequence = driver.add([3 + i % 9 for i in range(20)])
    for num_tokens in (20, 1):
        driver.step([(sequence, num_tokens)])
    monkeypatch.setattr(step_threads, "ONE_THREAD_ELEMENTS", 20)
    driver.step([(sequence, 1)])
    assert seen == [4, 1, 4]
