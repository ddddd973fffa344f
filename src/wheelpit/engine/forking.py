"""The fork server's own side: it has imported everything, and forks engines from itself.

Importing torch is most of a small engine's start and much of its memory. This process does it once
and nothing else: it has one thread, no model and no device. An engine is a copy of it, there within
milliseconds, that shares its memory until one of the two writes to it. `engine/fork_server.py` is
the front end's side.

    front end ── Fork(number), a socket ──> fork server ── fork ──> engine
        ^ <────────── Forked(number, pid) ─────────────────────────────┘
        └ <────────── Ended(number, status) ──────┘

When the front end is gone, the fork server ends, and its engines before it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable

import msgspec

from wheelpit.engine.messages import Ended, Fork, Forked

MAX_MESSAGE_BYTES = 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Fork).decode

RunEngine = Callable[[socket.socket, int], int]
"""(its socket, its number, from 0 on) -> the exit status. Called in the engine process."""


def serve_forks(control: socket.socket, run_engine: RunEngine) -> None:
    """Fork an engine for each socket that comes over `control`, until the other end is closed.

    To be called by a process with one thread, and as the last thing that it does.
    """
    # Nothing of what is there is looked at by a collection, here or in an engine: so it stays
    # shared. To collect before costs 0.1 s after an import of torch, and finds nothing.
    gc.freeze()
    children = _Children(control)
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(children.wake_fd, select.POLLIN)
    try:
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if children.wake_fd in ready:
                children.report_ends()
            if control.fileno() not in ready:
                continue
            message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
            if not message:
                return
            with socket.socket(fileno=fds[0]) as sock:
                children.fork(_decode(message).number, sock, run_engine)
    except ConnectionError:
        # It left without having read everything.
        return
    finally:
        children.end_all()


class _Children:
    """The engines that live, by process id. Written only by `serve_forks`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._numbers: dict[int, int] = {}
        # Without a handler, SIGCHLD would wake nobody.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.wake_fd, self._wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_end)

    def fork(self, number: int, sock: socket.socket, run_engine: RunEngine) -> None:
        pid = os.fork()
        if pid:
            self._numbers[pid] = number
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self.wake_fd)
            os.close(self._wake_end)
            # Before it says anything else: whoever hears of it knows its pid.
            self._control.send(_encode(Forked(number, os.getpid())))
            self._control.close()
            status = run_engine(sock, number)
        except BaseException:
            traceback.print_exc()
        finally:
            # The rest of this process is the fork server's, and not to be run a second time.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def report_ends(self) -> None:
        """Tell of each engine that has ended."""
        os.read(self.wake_fd, MAX_MESSAGE_BYTES)
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._numbers.pop(pid, None)
            if number is not None:
                self._control.send(_encode(Ended(number, os.waitstatus_to_exitcode(status))))

    def end_all(self) -> None:
        """Kill those that are left."""
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
