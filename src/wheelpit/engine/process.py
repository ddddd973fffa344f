"""Start, watch and stop engine processes. Used by `EngineLink`; knows no requests.

A process is an ordinary `subprocess` with one end of a socket pair, so a user's script needs no
`__main__` guard and a notebook works. Either side sees the other's death as the end of the
socket's stream. On Linux it is a fork server that is started so, and the engines are forked from
that (`engine/forking.py`): all but the first are there at once.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import wheelpit
from wheelpit import errors
from wheelpit.config import EngineConfig
from wheelpit.engine.fork_server import KILL_TIMEOUT_S, ForkServer
from wheelpit.engine.messages import FromEngine, Phase, Ready, Shutdown, Start, StartFailed
from wheelpit.engine.transport import LoopChannel
from wheelpit.errors import EngineStartError, WheelpitError

log = logging.getLogger(__name__)

WORKER = ("-m", "wheelpit.engine.worker")
"""Arguments to Python that run the engine process; more are appended (see worker.py)."""

DIE_WITH_PARENT = "--die-with-parent"
"""Argument to the worker: have the system kill it when the thread that started it ends."""

FORK_SERVER = "--fork-server"
"""Argument to the worker: be no engine, but fork engines. Its socket keeps messages apart."""

ENFORCE_EAGER = "--enforce-eager"
"""Argument to a fork server: its engines will need no compiled kernels."""

CAN_FORK = sys.platform == "linux"
"""Elsewhere, libraries that torch has loaded do not outlive a fork."""

STOP_TIMEOUT_S = 2.0
"""How long a step in flight may delay the engine's end before it is killed."""


class Child(Protocol):
    """A process of the system that runs an engine."""

    @property
    def pid(self) -> int | None:
        """None while it is not known yet."""
        ...

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status (negative: a signal), or None if it still runs after so long."""
        ...

    def kill(self) -> None:
        """End it at once. Idempotent."""
        ...


class Engines:
    """Starts one front end's engine processes, one after the other."""

    def __init__(self, worker: Sequence[str], config: EngineConfig) -> None:
        """worker: arguments to Python. config: what each is to load."""
        self.worker = tuple(worker)
        self._config = config
        self._fork_server: ForkServer | None = None

    def start(self) -> EngineProcess:
        """Start one, and tell it what to load. Follow with `wait_until_ready`. OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                child = self._fork(theirs) if CAN_FORK else OwnChild(_popen(self.worker, theirs))
        except BaseException:
            ours.close()
            raise
        process = EngineProcess(ours, child)
        process.channel.send(Start(self._config))
        return process

    def settle(self, ready: Ready) -> None:
        """Have later engines compute as this one does: answers may not depend on which it was."""
        model = replace(self._config.model, dtype=ready.dtype)  # type: ignore[arg-type]  # it is one
        self._config = replace(self._config, model=model, compute_plan=ready.compute_plan)

    def close(self) -> None:
        """Leave no process behind. Idempotent; blocks for moments."""
        if self._fork_server is not None:
            self._fork_server.close()

    def _fork(self, sock: socket.socket) -> Child:
        if self._fork_server is None or not self._fork_server.is_alive:
            self.close()
            self._fork_server = self._start_fork_server()
        return self._fork_server.fork(sock)

    def _start_fork_server(self) -> ForkServer:
        flags = [FORK_SERVER, *([ENFORCE_EAGER] if self._config.model.enforce_eager else [])]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            return ForkServer(_popen([*self.worker, *flags], theirs), ours)


class OwnChild:
    """An engine process that this one has started itself."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            if self.wait(KILL_TIMEOUT_S) is None:
                # Somebody must wait for it.
                threading.Thread(target=self._process.wait, daemon=True).start()


class EngineProcess:
    """The engine's process and our end of its socket."""

    def __init__(self, sock: socket.socket, child: Child) -> None:
        self._child = child
        self.channel = LoopChannel(sock, FromEngine)

    @property
    def pid(self) -> int | None:
        """None if it is so new that it has not said so."""
        self._child.wait(0.0)
        return self._child.pid

    def wait_until_ready(self, on_phase: Callable[[str, float], None]) -> Ready:
        """Block until the model is loaded.

        Raises the engine's own error (ModelLoadError, ConfigError, ...) if it reported one, and
        EngineStartError if it died without a word.
        """
        while True:
            message = self.channel.receive_blocking()
            match message:
                case Ready():
                    return message
                case Phase(name=name, seconds=seconds):
                    on_phase(name, seconds)
                case StartFailed():
                    self.stop()
                    raise _as_exception(message)
                case None:
                    self.stop()
                    raise EngineStartError(
                        "Engine core initialization failed. See root cause above. "
                        f"The engine process {describe_exit(self._child.wait(0.0))}."
                    )
                case _:
                    raise AssertionError(f"unexpected message {message!r} before Ready")

    def describe_end(self) -> tuple[str, bool]:
        """Say how the process ended, and whether it was killed; call after its socket closed."""
        status = self._child.wait(1.0)
        if status is None:
            return "closed its socket but still runs", False
        return describe_exit(status), -status in (signal.SIGKILL, signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once. Idempotent."""
        self.channel.close()
        self._child.kill()

    def stop(self) -> None:
        """End the process: politely, then by force. Idempotent; blocks up to STOP_TIMEOUT_S."""
        if self.pid is None:
            self.kill()
            return
        self.channel.send(Shutdown())
        self.channel.close()
        if self._child.wait(STOP_TIMEOUT_S) is None:
            log.warning("the engine process did not end in %.0f s; killing it", STOP_TIMEOUT_S)
            self.kill()


def _popen(worker: Sequence[str], sock: socket.socket) -> subprocess.Popen[bytes]:
    level = logging.getLogger("wheelpit").getEffectiveLevel()
    return subprocess.Popen(
        [sys.executable, *worker, *_bond(), str(sock.fileno()), str(level)],
        pass_fds=(sock.fileno(),),
        stdin=subprocess.DEVNULL,
        # Ctrl-C goes to the terminal's whole process group; the front end decides when
        # the engine ends.
        process_group=0,
        env=_environment(),
    )


def _bond() -> tuple[str, ...]:
    """Ask the child to be killed with us, if we are the main thread.

    The system sends that signal when the *thread* that started the child ends; the main thread
    ends with the process.
    """
    return (DIE_WITH_PARENT,) if threading.current_thread() is threading.main_thread() else ()


def _environment() -> dict[str, str]:
    """Let the child import the same wheelpit as this process, however it was found."""
    root = str(Path(wheelpit.__file__).resolve().parent.parent)
    environment = dict(os.environ)
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    # For nothing: no engine computes with numpy. A fork server must have a single thread.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    # torch then keeps large tensors in huge pages: a small step streams the weights, and reading
    # them costs fewer look-ups of addresses. Has no effect where the system has none.
    environment.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # A thread that waits for the others of an operation spins for about 10 us, then sleeps. By
    # default it spins for milliseconds, on a core that the thread it waits for may need: with
    # anything else to run on the machine, steps take many times as long.
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "3000")
    return environment


def _as_exception(failed: StartFailed) -> Exception:
    kind = getattr(errors, failed.kind, None)
    if isinstance(kind, type) and issubclass(kind, WheelpitError):
        return kind(failed.message)
    return EngineStartError(
        f"Engine core initialization failed. See root cause above. {failed.kind}: {failed.message}"
    )


def describe_exit(status: int | None) -> str:
    """Turn a return code into words: "exited with status 1", "was killed by signal 9"."""
    if status is None:
        return "is still running"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"exited with status {status}"
