"""The compiled kernels do what plain torch does, and are done without where they cannot be had."""

from __future__ import annotations

import ctypes
import logging
import os
import stat
from pathlib import Path

import pytest
import torch

from tests.kernels.attention_case import CPU, HEADS, TOLERANCE, WORK, Case, random
from wheelpit.config import EngineConfig, ModelOptions
from wheelpit.kernels import build
from wheelpit.kernels.build import start_build
from wheelpit.kernels.compiled import CompiledOperations, load
from wheelpit.kernels.reference import TorchOperations
from wheelpit.runner.kernel_choice import choose_kernels, open_library

DTYPES = [torch.float32, torch.bfloat16]
PLAIN = TorchOperations()


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture
def compiled(kernel_library: Path, dtype: torch.dtype) -> CompiledOperations:
    return CompiledOperations(load(kernel_library), dtype)


@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim"),
    [*((*heads, 64) for heads in HEADS), *((6, 3, size) for size in (8, 20, 128, 256))],
)
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_attention_is_attention(
    compiled: CompiledOperations,
    dtype: torch.dtype,
    work: list[tuple[int, int]],
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
) -> None:
    case = Case(work, num_heads, num_kv_heads, head_dim)
    for ours, expected in zip(case.run(compiled, dtype), case.expected(dtype), strict=True):
        torch.testing.assert_close(ours, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("window", [1, 3, 4, 7])
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_sliding_window_hides_what_is_older(
    compiled: CompiledOperations, dtype: torch.dtype, work: list[tuple[int, int]], window: int
) -> None:
    case = Case(work, 4, 2)
    results = zip(case.run(compiled, dtype, window), case.expected(dtype, window), strict=True)
    for ours, expected in results:
        torch.testing.assert_close(ours, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_many_threads_attend_as_one_does(compiled: CompiledOperations, dtype: torch.dtype) -> None:
    """Each sequence's result is the same, bit by bit, whatever else is in the step."""
    work = [(900 + 37 * index, 1) for index in range(11)]
    together = Case(work, 6, 3, 64).run(compiled, dtype)
    for index in (0, 7):
        case = Case(work, 6, 3, 64)
        case.work, case.tokens = case.work[index : index + 1], case.tokens[index : index + 1]
        assert torch.equal(case.run(compiled, dtype)[0], together[index])


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 15])
@pytest.mark.parametrize("shape", [(1, 5), (7, 48), (3, 130), (384, 1024)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_rows_are_multiplied_as_torch_does(
    compiled: CompiledOperations,
    dtype: torch.dtype,
    rows: int,
    shape: tuple[int, int],
    has_bias: bool,
) -> None:
    weight, x = random(*shape).to(dtype), random(rows, shape[1], seed=1).to(dtype)
    bias = random(shape[0], seed=2).to(dtype) if has_bias else None
    want = x.double() @ weight.double().T + (0.0 if bias is None else bias.double())
    tolerance = max(1e-4, TOLERANCE[dtype])
    for operations in (compiled, PLAIN):
        got = operations.multiply_rows(weight, x, bias)
        torch.testing.assert_close(got, want.to(dtype), atol=tolerance, rtol=tolerance)


def test_a_row_is_multiplied_alike_whatever_else_there_is(
    compiled: CompiledOperations, dtype: torch.dtype
) -> None:
    """Bit by bit: by however many threads, and beside however many rows."""
    weight, x = random(301, 330).to(dtype), random(15, 330, seed=1).to(dtype)
    together = compiled.multiply_rows(weight, x, None)
    for number in (1, 4, 2):
        compiled.use_threads(number)
        for rows in (slice(0, 1), slice(3, 5), slice(2, 9), slice(7, 15)):
            assert torch.equal(compiled.multiply_rows(weight, x[rows], None), together[rows])


def test_rows_of_tables_are_looked_up(compiled: CompiledOperations, dtype: torch.dtype) -> None:
    table, ids = random(9, 37).to(dtype), torch.tensor([8, 0, 3, 3])
    assert torch.equal(compiled.embed(table, ids), PLAIN.embed(table, ids))
    angles = random(9, 1, 12)
    rotations = torch.polar(torch.ones_like(angles), angles)
    assert torch.equal(compiled.take_rotations(rotations, ids), rotations[ids])


@pytest.mark.parametrize("shape", [(1, 5), (7, 48), (3, 384), (200, 384)])
def test_adding_and_normalising_is_what_torch_does(
    compiled: CompiledOperations, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    gain, floor = random(shape[1], seed=1), torch.tensor(0.3)
    for delta in (None, random(*shape, seed=2).to(dtype)):
        ours, plain = random(*shape), random(*shape)
        got = compiled.add_norm(ours, delta, gain, floor, dtype)
        want = PLAIN.add_norm(plain, delta, gain, floor, dtype)
        assert torch.equal(ours, plain)
        torch.testing.assert_close(got, want)


def test_heads_are_normalised_in_place_and_their_neighbours_left(
    compiled: CompiledOperations, dtype: torch.dtype
) -> None:
    gain, floor = random(20, seed=1), torch.tensor(0.3)
    ours, plain = random(6, 9, 20).to(dtype), random(6, 9, 20).to(dtype)
    compiled.norm_heads_(ours[:, 2:7], gain, floor)
    PLAIN.norm_heads_(plain[:, 2:7], gain, floor)
    torch.testing.assert_close(ours, plain)
    assert torch.equal(ours[:, 7:], random(6, 9, 20).to(dtype)[:, 7:])


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_silu_and_mul_is_what_torch_does(
    compiled: CompiledOperations, dtype: torch.dtype, rows: int
) -> None:
    x = random(rows, 2 * 250) * 30
    x[0, :4] = torch.tensor([0.0, -1e4, 1e4, -90.0])
    got, want = compiled.silu_and_mul(x.to(dtype)), PLAIN.silu_and_mul(x.to(dtype).float())
    torch.testing.assert_close(got.float(), want, atol=1e-6, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("rows", [1, 5, 90])
def test_rotation_and_writing_are_what_torch_does(
    compiled: CompiledOperations, dtype: torch.dtype, rows: int
) -> None:
    """What is in the cache and in the queries afterwards, seen through one step's attention."""
    case, plain = Case([(0, rows)], 6, 3, 64), Case([(0, rows)], 6, 3, 64)
    angles = random(rows, 1, 32, seed=5) * 3
    turned = torch.polar(torch.ones_like(angles), angles)
    results = [
        case.run(compiled, dtype, rotations=turned)[0],
        plain.run(PLAIN, dtype, rotations=turned)[0],
    ]
    torch.testing.assert_close(*results, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so_and_stays_where_it_is(
    compiled: CompiledOperations, dtype: torch.dtype, value: float
) -> None:
    case = Case([(9, 1), (30, 1)], 4, 2)
    case.tokens[0][3, 5] = value  # a key that the first sequence's query sees
    first, second = case.run(compiled, dtype)
    assert not torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    hidden = torch.full((1, 8), value)
    out = compiled.add_norm(hidden, None, torch.ones(8), torch.tensor(0.1), dtype)
    assert not torch.isfinite(out).all()
    assert not torch.isfinite(compiled.silu_and_mul(hidden.to(dtype))).all()
    weight = torch.ones(3, 8).to(dtype)
    assert not torch.isfinite(compiled.multiply_rows(weight, hidden.to(dtype), None)).any()


# --- how the library comes about


@pytest.fixture
def small_source(kernel_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something to compile that takes no time; kernel_library: there is a compiler."""
    source = tmp_path / "small.cpp"
    source.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(build, "SOURCES", (source,))
    return source


def test_a_library_is_compiled_once_and_then_found(
    small_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("libraries")
    first = start_build(tmp_path)
    path = first.wait()
    assert path is not None
    assert path == first.wait()
    assert list(tmp_path.iterdir()) == [path]
    written_ns = path.stat().st_mtime_ns
    assert start_build(tmp_path).wait() == path
    assert path.stat().st_mtime_ns == written_ns
    assert ctypes.CDLL(str(path)).answer() == 42
    small_source.write_text('extern "C" int answer() { return 43; }\n')
    other = start_build(tmp_path).wait()
    assert other is not None
    assert ctypes.CDLL(str(other)).answer() == 43


def test_without_a_compiler_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    none = start_build(tmp_path)
    assert none.wait() is None
    assert none.reason == "there is no C++ compiler (c++, g++, clang++)"


def test_a_compiler_that_fails_leaves_its_error_and_no_file(
    small_source: Path, tmp_path: Path
) -> None:
    small_source.write_text("this is no C++\n")
    folder = tmp_path / "libraries"
    folder.mkdir()
    failed = start_build(folder)
    assert failed.wait() is None
    assert failed.reason.startswith("the C++ compiler failed: ")
    assert "error" in failed.reason
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_write_to_is_not_trusted(
    small_source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "wheelpit"
    folder.mkdir()
    folder.chmod(0o777)
    none = start_build()
    assert none.wait() is None
    assert none.reason == f"others may write to {folder}: chmod go-w it"
    folder.rmdir()
    made = start_build().wait()
    assert made is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_in_the_folders_place_is_a_reason(
    kernel_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wheelpit").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    none = start_build()
    assert none.wait() is None
    assert "wheelpit" in none.reason


def config(**options: bool) -> EngineConfig:
    return EngineConfig(model=ModelOptions(folder="", max_model_len=64, **options))


def test_the_compiled_kernels_are_chosen_where_they_fit(
    kernel_library: Path,
) -> None:
    library = open_library(config(), CPU, None)
    chosen = choose_kernels(library, torch.bfloat16)
    assert isinstance(chosen.operations, CompiledOperations)
    plain = choose_kernels(library, torch.float16)
    assert isinstance(plain.operations, TorchOperations)
    assert open_library(config(enforce_eager=True), CPU, None) is None
    assert open_library(config(), torch.device("cuda"), None) is None


def test_a_library_that_cannot_be_loaded_is_done_without(
    kernel_library: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(os.urandom(100))
    library = open_library(config(), CPU, build.Build(broken, None, None))
    assert library is None
    assert isinstance(choose_kernels(library, torch.float32).operations, TorchOperations)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
