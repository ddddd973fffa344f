"""Engines are forked from a process that is ready for it: what becomes of them, and of that."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.test_async_engine import collect, params, until
from tests.engine.test_faults import check_streams, start_streams
from tests.fake_worker import fake_worker
from wheelpit.engine import process
from wheelpit.engine.fork_server import ForkServer
from wheelpit.engine.supervisor import EngineState
from wheelpit.errors import EngineStartError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="engines are forked on Linux only")

SERVER = """
import os, socket, sys, time
from wheelpit.engine.forking import serve_forks

def run_engine(sock, number):
    while word := sock.recv(100).decode():
        match word:
            case "name":
                sock.sendall(b"%d %d" % (number, os.getpid()))
            case "exit":
                return 3
            case "raise":
                raise KeyError("told to raise")
    return 0

serve_forks(socket.socket(fileno=int(sys.argv[1])), run_engine)
"""


class Served:
    """A fork server whose engines do what they are told in words."""

    def __init__(self) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stderr=subprocess.PIPE,
            )
        self.server = ForkServer(self.process, control)
        self.socks: list[socket.socket] = []

    def fork(self):
        """An engine, our end of its socket, and the number and the pid that it has."""
        ours, theirs = socket.socketpair()
        self.socks.append(ours)
        with theirs:
            child = self.server.fork(theirs)
        ours.sendall(b"name")
        number, pid = map(int, ours.recv(100).split())
        return child, ours, number, pid

    def close(self) -> None:
        self.server.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        for sock in self.socks:
            sock.close()


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_each_engine_has_its_number_and_says_who_it_is(served: Served) -> None:
    for wanted in range(3):
        child, _, number, pid = served.fork()
        assert number == wanted
        assert child.wait(0.0) is None
        assert child.pid == pid


@pytest.mark.parametrize(("word", "status"), [("exit", 3), ("raise", 1)])
def test_how_an_engine_ended_is_told(served: Served, word: str, status: int) -> None:
    first, sock, _, pid = served.fork()
    second, _, _, _ = served.fork()
    sock.sendall(word.encode())
    assert sock.recv(100) == b""
    assert first.wait(10.0) == status
    assert not is_there(pid)
    assert second.wait(0.0) is None
    first.kill()
    assert first.wait(0.0) == status


def test_an_engine_is_killed_and_the_others_are_not(served: Served) -> None:
    first, _, _, pid = served.fork()
    second, _, _, _ = served.fork()
    first.kill()
    assert first.wait(10.0) == -signal.SIGKILL
    assert not is_there(pid)
    assert second.wait(0.0) is None


def test_nobody_is_left_when_it_is_closed(served: Served) -> None:
    pids = [served.fork()[3] for _ in range(2)]
    served.server.close()
    assert not any(map(is_there, pids))
    assert served.process.returncode == 0
    assert not served.server.is_alive


def test_engines_end_as_their_fork_server_does(served: Served) -> None:
    child, _, _, _ = served.fork()
    served.process.kill()
    assert child.wait(10.0) == -signal.SIGKILL
    assert not served.server.is_alive


def test_an_engine_that_was_never_made_is_killed_with_its_fork_server(served: Served) -> None:
    served.process.send_signal(signal.SIGSTOP)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = served.server.fork(theirs)
        assert child.wait(0.05) is None
        assert child.pid is None
        child.kill()
    assert child.wait(0.0) == -signal.SIGKILL
    assert not served.server.is_alive


# --- with engines


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_the_next_engine_comes_from_the_same_process(make_engine):
    engine = make_engine()
    await collect(engine, "abc", params())
    first = engine.engine_pid
    fork_server = parent_of(first)
    assert parent_of(fork_server) == os.getpid()
    assert name_of(first) == "wheelpit-engine"
    os.kill(first, signal.SIGKILL)
    await until(lambda: engine.engine_pid not in (None, first))
    assert parent_of(engine.engine_pid) == fork_server
    engine.shutdown()
    assert not is_there(fork_server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_streams_go_on_when_the_fork_server_is_killed(make_engine, number):
    engine = make_engine(worker=fake_worker(step_ms=5))
    prompts, tasks = await start_streams(engine, 4, 100)
    fork_server = parent_of(engine.engine_pid)
    os.kill(fork_server, number)
    await check_streams(prompts, tasks, 100)
    assert parent_of(engine.engine_pid) != fork_server
    assert engine.health().num_restarts == 1


async def test_a_fork_server_that_hangs_is_replaced(make_engine):
    engine = make_engine(worker=fake_worker(step_ms=5), engine_stall_timeout=0.4)
    prompts, tasks = await start_streams(engine, 4, 100)
    engine._link._supervisor._loading_limit_s = 0.3
    pid = engine.engine_pid
    os.kill(parent_of(pid), signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: engine.health().num_restarts == 2)
    engine._link._supervisor._loading_limit_s = 60.0
    await check_streams(prompts, tasks, 100)


def test_a_process_that_does_not_get_so_far_is_an_error(make_engine):
    with pytest.raises(EngineStartError, match="exited with status 3"):
        make_engine(worker=["-c", "raise SystemExit(3)"])


async def test_what_has_imported_torch_has_one_thread_and_can_be_forked(make_engine):
    """A thread that is not forked along would hold its locks for ever in the engine."""
    engine = make_engine(worker=process.WORKER, load_format="dummy")
    wanted = await collect(engine, [5, 6, 7], params(max_tokens=20, temperature=0.0))
    first = engine.engine_pid
    assert len(os.listdir(f"/proc/{parent_of(first)}/task")) == 1
    os.kill(first, signal.SIGKILL)
    got = await collect(engine, [5, 6, 7], params(max_tokens=20, temperature=0.0))
    assert got[-1].outputs[0].token_ids == wanted[-1].outputs[0].token_ids
    assert engine.engine_pid != first


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="there is no GPU")
async def test_engines_on_a_gpu_are_forked_too(make_engine):
    """They may be, as long as nothing has used the GPU before the fork."""
    engine = make_engine(worker=process.WORKER, load_format="dummy", device="cuda")
    wanted = await collect(engine, [5, 6, 7], params(max_tokens=20, temperature=0.0))
    first = engine.engine_pid
    os.kill(first, signal.SIGKILL)
    got = await collect(engine, [5, 6, 7], params(max_tokens=20, temperature=0.0))
    assert got[-1].outputs[0].token_ids == wanted[-1].outputs[0].token_ids
    assert parent_of(engine.engine_pid) != os.getpid()


async def test_where_nothing_can_be_forked_each_engine_is_started(make_engine, monkeypatch):
    monkeypatch.setattr(process, "CAN_FORK", False)
    engine = make_engine(worker=fake_worker(step_ms=5))
    prompts, tasks = await start_streams(engine, 4, 60)
    first = engine.engine_pid
    assert parent_of(first) == os.getpid()
    os.kill(first, signal.SIGKILL)
    await check_streams(prompts, tasks, 60)
    second = engine.engine_pid
    assert second != first
    assert parent_of(second) == os.getpid()
    assert engine.health().state is EngineState.SERVING
    engine.shutdown()
    await asyncio.to_thread(lambda: [None for _ in iter(lambda: is_there(second), False)])
