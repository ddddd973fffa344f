"""A server in a process of its own: addresses, signals, exit codes, what it imports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import RunningServer
from tests.server.scripted_engine import ScriptedEngine, delta
from wheelpit.errors import ConfigError
from wheelpit.request import RequestOutput
from wheelpit.server.listen import Listen, ListenError, bind
from wheelpit.server.options import ServerOptions
from wheelpit.server.run import HttpServer

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path
from tests.fake_worker import fake_worker
from tests.server.conftest import launch
from wheelpit.server.listen import Listen, ListenError, bind
from wheelpit.server.run import run

folder, uds, port, patience = sys.argv[1:]
listen = Listen(
    host="127.0.0.1", port=int(port), uds=uds or None, shutdown_timeout_s=float(patience)
)
try:
    sock = bind(listen)
except ListenError as error:
    sys.exit(str(error))
engine = launch(Path(folder), fake_worker(step_ms=20))

def on_ready(url):
    print(url, engine.engine_pid, flush=True)

code = run(engine, None, listen, sock, on_ready)
heavy = [name for name in ("torch", "numpy", "transformers") if name in sys.modules]
status = Path("/proc/self/status").read_text()
peak_kib = int(status.partition("VmHWM:")[2].split()[0])
print(heavy, peak_kib, flush=True)
sys.exit(code)
"""

Start = Callable[..., "Process"]


class Process:
    """The program above, running."""

    def __init__(self, folder: Path, *, uds: str = "", port: int = 0, patience: float = 0) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), uds, str(port), str(patience)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().split()
        if not line:
            raise AssertionError(self.popen.communicate()[1])
        self.engine_pid = int(line[1])
        return line[0]

    def end(self) -> tuple[str, str]:
        return self.popen.communicate(timeout=60)


@pytest.fixture
def start(model_folder: Path) -> Iterator[Start]:
    processes: list[Process] = []

    def make(**options: object) -> Process:
        processes.append(Process(model_folder, **options))  # type: ignore[arg-type]
        return processes[-1]

    yield make
    for process in processes:
        process.popen.kill()
        process.popen.communicate()


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_aborts_what_runs_and_ends_with_code_0(start: Start, number: int) -> None:
    process = start()
    url = process.wait_until_ready()
    body = {"prompt": "x", "stream": True, "max_tokens": 240, "return_token_ids": True}
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{url}/v1/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        process.popen.send_signal(number)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"abort"' in rest[-2]
    output, errors = process.end()
    assert process.popen.returncode == 0, errors
    assert errors == ""
    assert not is_alive(process.engine_pid)
    heavy, peak_kib = output.strip().rsplit(" ", 1)
    assert heavy == "[]"
    assert int(peak_kib) < 150 * 1024


def test_with_patience_running_requests_finish(start: Start) -> None:
    process = start(patience=60)
    url = process.wait_until_ready()
    body = {"prompt": "x", "stream": True, "max_tokens": 20, "return_token_ids": True}
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{url}/v1/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert '"finish_reason":"length"' in rest[-2]
    process.end()
    assert process.popen.returncode == 0


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/health/ready", timeout=60).status_code == 200


@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_leaves_nothing(start: Start, last: int) -> None:
    process = start(patience=600)
    url = process.wait_until_ready()
    body = {"prompt": "x", "stream": True, "max_tokens": 240, "return_token_ids": True}
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{url}/v1/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        # Only after the first is dealt with: it is not ready then.
        while is_ready(url):
            pass
        process.popen.send_signal(last)
        _, errors = process.end()
    assert process.popen.returncode == 0, errors
    assert errors == ""
    assert not is_alive(process.engine_pid)


def test_while_it_drains_it_takes_no_new_requests_and_finishes_the_old(start: Start) -> None:
    process = start(patience=60)
    url = process.wait_until_ready()
    body = {"prompt": "x", "stream": True, "max_tokens": 60, "return_token_ids": True}
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", f"{url}/v1/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        while is_ready(url):
            pass
        ready = httpx.get(f"{url}/health/ready", timeout=60)
        assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
        assert httpx.get(f"{url}/health/live", timeout=60).status_code == 200
        assert httpx.get(f"{url}/health", timeout=60).status_code == 200
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, timeout=60)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["reason"] == "draining"
        assert refused.json()["error"]["type"] == "ServiceUnavailableError"
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
        assert RunningServer.metric(metrics, "wheelpit:admission_rejections_total") == 1
        rest = [line for line in lines if line]
    assert '"finish_reason":"length"' in rest[-2]
    process.end()
    assert process.popen.returncode == 0


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_server_that_is_killed_takes_its_engine_with_it(start: Start, is_stopped: bool) -> None:
    """Even one that is stopped, and so cannot see that its front end has gone."""
    process = start()
    url = process.wait_until_ready()
    assert httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, timeout=60).is_success
    if is_stopped:
        os.kill(process.engine_pid, signal.SIGSTOP)
    process.popen.kill()
    process.popen.wait()
    while is_alive(process.engine_pid):
        pass


def test_a_taken_port_is_one_clear_line_and_code_1(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(port=port)
        _, errors = process.end()
    assert process.popen.returncode == 1
    assert errors.strip() == (
        f"port {port} is in use on 127.0.0.1: stop the other program or pass --port"
    )


async def test_a_port_taken_while_the_model_loads_is_told_as_clearly(model_folder: Path) -> None:
    """Two programs may bind one port while neither listens; the second to listen is told."""
    with bind(Listen(host="127.0.0.1", port=0)) as first:
        listen = Listen(host="127.0.0.1", port=first.getsockname()[1])
        with bind(listen) as second:
            first.listen()
            server = HttpServer(
                ScriptedEngine(model_folder, says_nothing), ServerOptions(), listen, second
            )
            with pytest.raises(ListenError, match=f"port {listen.port} is in use on 127.0.0.1"):
                await server.run()


async def says_nothing() -> AsyncGenerator[RequestOutput, None]:
    yield delta("", finish_reason="stop")


def test_a_unix_socket_works_and_is_removed(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "w.sock")
    process = start(uds=path)
    assert process.wait_until_ready() == f"unix:{path}"
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        assert client.get("http://x/health").status_code == 200
    with pytest.raises(ListenError, match="in use"):
        bind(Listen(uds=path))
    process.popen.send_signal(signal.SIGTERM)
    process.end()
    assert process.popen.returncode == 0
    assert not Path(path).exists()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "stale.sock")
    bind(Listen(uds=path)).close()
    assert Path(path).exists()
    bind(Listen(uds=path)).close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="in use"):
        bind(Listen(uds=str(path)))
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"host": "no.such.host.invalid"}, "unknown"),
        ({"host": "203.0.113.1"}, "cannot listen"),
        ({"uds": "/nonexistent/dir/x.sock"}, "cannot listen"),
    ],
)
def test_other_bad_addresses_are_one_line_too(options: dict[str, str], word: str) -> None:
    with pytest.raises(ListenError, match=word) as caught:
        bind(Listen(port=0, **options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"port": -1}, {"port": 70_000}, {"shutdown_timeout_s": -1}, {"ssl_keyfile": "k"}]
)
def test_listen_checks_its_ranges(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Listen(**options)  # type: ignore[arg-type]
