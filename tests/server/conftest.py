"""Servers on real sockets: the real engine with a fake model, in a thread with its own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fake_worker import fake_worker
from tests.server.gated_worker import Gate
from tests.server.watcher import Watcher
from tests.tiny_model import make_model_folder
from wheelpit import AsyncEngineArgs, AsyncLLMEngine
from wheelpit.server.app import service_of
from wheelpit.server.listen import Listen, bind
from wheelpit.server.live_requests import LiveRequests
from wheelpit.server.options import ServerOptions
from wheelpit.server.run import HttpServer
from wheelpit.server.served_engine import ServedEngine

MODEL = "tiny"

T = TypeVar("T")


class RunningServer:
    """A server in a thread. `engine` is for looking at, not for calling."""

    def __init__(
        self, engine: Any, options: ServerOptions | None = None, listen: Listen | None = None
    ) -> None:
        self.engine = engine
        self.url = ""
        self.exit_code: int | None = None
        self._options = options or ServerOptions()
        self._listen = listen or Listen(host="127.0.0.1", port=0, shutdown_timeout_s=0.0)
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(60)
        assert self._failure is None, self._failure
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self.exit_code = runner.run(self._serve(self.engine))
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self, engine: ServedEngine) -> int:
        self._loop = asyncio.get_running_loop()

        def on_ready(url: str) -> None:
            self.url = url
            self._ready.set()

        try:
            with closing(bind(self._listen)) as sock:
                self._server = HttpServer(engine, self._options, self._listen, sock)
                return await self._server.run(on_ready)
        finally:
            engine.shutdown()

    def stop(self) -> None:
        self.client.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
        self.join()

    def join(self) -> None:
        """Wait for the server's end."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self._failure is None, self._failure

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    def chat(self, **fields: Any) -> httpx.Response:
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 4,
            "seed": 1,
            **fields,
        }
        return self.post("/v1/chat/completions", body)

    def complete(self, **fields: Any) -> httpx.Response:
        return self.post(
            "/v1/completions", {"prompt": "hello", "max_tokens": 4, "seed": 1, **fields}
        )

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call something on the server's loop, where alone its state is whole."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Wait for something that must become true; the test's time limit ends a vain wait."""
        while not self.on_loop(is_true):
            pass

    @property
    def live(self) -> LiveRequests:
        """The requests in flight, to be looked at on the server's loop."""
        return service_of(self._server.app).live

    def engine_request_ids(self) -> list[str]:
        """What is being generated at this moment."""
        return self.on_loop(lambda: self.live.engine_ids)

    @staticmethod
    def metric(text: str, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels; KeyError if there is none."""
        values = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        if not values:
            raise KeyError(f"{name} {labels}")
        return sum(values)

    def metrics(self) -> str:
        response = self.client.get("/metrics")
        assert response.status_code == 200
        return response.text

    def is_serving(self) -> bool:
        return self.complete().status_code == 200


MakeServer = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("served") / MODEL)


def launch(folder: Path, worker: list[str], **args: Any) -> AsyncLLMEngine:
    given = AsyncEngineArgs(model=str(folder), **{"served_model_name": MODEL, **args})
    engine = AsyncLLMEngine.launch(given, worker=worker)
    engine.wait_until_ready()
    return engine


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[RunningServer]:
    """One server for all tests that leave it as it was."""
    running = RunningServer(launch(model_folder, fake_worker()))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def slow_server(model_folder: Path) -> Iterator[RunningServer]:
    """20 ms a step, so that a request is surely running when its first token arrives."""
    running = RunningServer(launch(model_folder, fake_worker(step_ms=20), max_num_seqs=2))
    yield running
    running.stop()


@dataclass(frozen=True)
class GatedServer:
    """A server whose engine makes a step when the test says so, and what was said of requests."""

    server: RunningServer
    gate: Gate
    watcher: Watcher


MakeGated = Callable[..., GatedServer]


@pytest.fixture
def make_gated(make_server: MakeServer, model_folder: Path, tmp_path: Path) -> Iterator[MakeGated]:
    """Start gated servers: make_gated(options, max_num_seqs=1, ...)."""
    gates: list[Gate] = []

    def make(options: ServerOptions | None = None, **args: Any) -> GatedServer:
        gate = Gate(tmp_path / f"gate-{len(gates)}")
        gates.append(gate)
        # An engine that waits for its test does not hang.
        engine = launch(model_folder, gate.worker, engine_stall_timeout=3600.0, **args)
        watcher = Watcher()
        engine.add_stat_logger(watcher)
        return GatedServer(make_server(options, engine=engine), gate, watcher)

    yield make
    for gate in gates:
        gate.open()


@pytest.fixture
def make_server(model_folder: Path) -> Iterator[MakeServer]:
    """Start servers of one's own: make_server(options, step_ms=...)."""
    servers: list[RunningServer] = []

    def make(
        options: ServerOptions | None = None,
        *,
        engine: Any = None,
        step_ms: float = 0,
        listen: Listen | None = None,
        **args: Any,
    ) -> RunningServer:
        if engine is None:
            engine = launch(model_folder, fake_worker(step_ms=step_ms), **args)
        servers.append(RunningServer(engine, options, listen))
        return servers[-1]

    yield make
    for running in servers:
        running.stop()
