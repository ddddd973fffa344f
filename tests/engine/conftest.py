"""Engines with a real process and a fake runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_worker import fake_worker
from tests.tiny_model import make_model_folder
from wheelpit import AsyncEngineArgs, AsyncLLMEngine


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("tiny-model"))


def start(model_folder: Path, *, worker: list[str] | None = None, **args: Any) -> AsyncLLMEngine:
    """An engine with the fake worker."""
    engine = AsyncLLMEngine.launch(
        AsyncEngineArgs(model=str(model_folder), **args), worker=worker or fake_worker()
    )
    engine.wait_until_ready()
    return engine


@pytest.fixture
def make_engine(model_folder: Path) -> Iterator[Callable[..., AsyncLLMEngine]]:
    """Start engines of a test's own; all are shut down at its end."""
    engines: list[AsyncLLMEngine] = []

    def make(**options: Any) -> AsyncLLMEngine:
        engine = start(model_folder, **options)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.shutdown()


@pytest.fixture(scope="module")
def engine(model_folder: Path) -> Iterator[AsyncLLMEngine]:
    """One for all tests that leave it as they found it."""
    engine = start(model_folder)
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def slow_engine(model_folder: Path) -> Iterator[AsyncLLMEngine]:
    """20 ms a step: a request is surely still running when a test gets its first token."""
    engine = start(model_folder, worker=fake_worker(step_ms=20))
    yield engine
    engine.shutdown()
