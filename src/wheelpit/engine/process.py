"""Start, watch and stop the engine process. Used by `AsyncLLMEngine`; knows no requests.

The process is an ordinary `subprocess` with one end of a socket pair, so a user's script needs no
`__main__` guard and a notebook works. Either side sees the other's death as the end of the
socket's stream.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import wheelpit
from wheelpit import errors
from wheelpit.config import EngineConfig
from wheelpit.engine.messages import FromEngine, Phase, Ready, Shutdown, Start, StartFailed
from wheelpit.engine.transport import LoopChannel
from wheelpit.errors import EngineStartError, WheelpitError

log = logging.getLogger(__name__)

WORKER = ("-m", "wheelpit.engine.worker")
"""Arguments to Python that run the engine process; more are appended (see worker.py)."""

DIE_WITH_PARENT = "--die-with-parent"
"""Argument to the worker: have the system kill it when the thread that started it ends."""

STOP_TIMEOUT_S = 2.0
"""How long a step in flight may delay the engine's end before it is killed."""


class EngineProcess:
    """The child process and our end of its socket."""

    def __init__(self, worker: Sequence[str] = WORKER) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            level = logging.getLogger("wheelpit").getEffectiveLevel()
            self._popen = subprocess.Popen(
                [sys.executable, *worker, *_bond(), str(theirs.fileno()), str(level)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # Ctrl-C goes to the terminal's whole process group; the front end decides when
                # the engine ends.
                process_group=0,
                env=_environment(),
            )
        self.channel = LoopChannel(ours, FromEngine)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def start(self, config: EngineConfig) -> None:
        """Say what to load. Follow with `wait_until_ready`."""
        self.channel.send(Start(config))

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
                        f"The engine process {describe_exit(self._popen.returncode)}."
                    )
                case _:
                    raise AssertionError(f"unexpected message {message!r} before Ready")

    def describe_end(self) -> tuple[str, bool]:
        """Say how the process ended, and whether it was killed; call after its socket closed."""
        try:
            status = self._popen.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "closed its socket but still runs", False
        return describe_exit(status), -status in (signal.SIGKILL, signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once. Idempotent."""
        self.channel.close()
        if self._popen.poll() is None:
            self._popen.kill()
            try:
                self._popen.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                # It takes its time to give back its memory: somebody else waits for it.
                threading.Thread(target=self._popen.wait, daemon=True).start()

    def stop(self) -> None:
        """End the process: politely, then by force. Idempotent; blocks up to STOP_TIMEOUT_S."""
        if self._popen.poll() is None:
            self.channel.send(Shutdown())
        self.channel.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        try:
            self._popen.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("the engine process did not end in %.0f s; killing it", STOP_TIMEOUT_S)
            self._popen.kill()
            self._popen.wait()


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
