"""The front end's side of the fork server: ask it for engines, hear how they ended.

`engine/forking.py` is the other side, and says why. Its messages are read when somebody asks for
what they say; there are two for each engine.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import subprocess
import time

import msgspec

from wheelpit.engine.forking import MAX_MESSAGE_BYTES
from wheelpit.engine.messages import Ended, Fork, Forked

CLOSE_TIMEOUT_S = 1.0

KILL_TIMEOUT_S = 0.2
"""How long a killed process is waited for: it takes its time to give back its memory."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Forked | Ended).decode


class ForkServer:
    """One fork server and the engines that it was asked for. Used by one thread."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        """control: our end of its socket, which keeps messages apart (SOCK_SEQPACKET)."""
        self._process = process
        self._control = control
        control.setblocking(False)
        self._children: dict[int, ForkedChild] = {}
        self._numbers = itertools.count()
        self._is_closed = False

    @property
    def is_alive(self) -> bool:
        return not self._is_closed and self._process.poll() is None

    def fork(self, sock: socket.socket) -> ForkedChild:
        """Ask for an engine that has this socket. Does not wait for it. OSError."""
        number = next(self._numbers)
        socket.send_fds(self._control, [_encode(Fork(number))], [sock.fileno()])
        child = self._children[number] = ForkedChild(self)
        return child

    def listen(self, timeout_s: float) -> None:
        """Take in what it says, waiting for so long if that is nothing so far."""
        while not self._is_closed and self._has_news(timeout_s):
            timeout_s = 0.0
            try:
                data = self._control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return  # another thread has asked, too
            except ConnectionError:
                data = b""
            if not data:
                self.close()
                return
            match _decode(data):
                case Forked(number=number, pid=pid):
                    self._children[number].pid = pid
                case Ended(number=number, status=status):
                    self._children.pop(number).status = status

    def kill(self) -> None:
        """End it at once, and by that its engines. Idempotent."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Have it end its engines and itself, and wait for that. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._control.close()
        try:
            status = self._process.wait(timeout=CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        for child in self._children.values():
            child.status = status
        self._children.clear()

    def _has_news(self, timeout_s: float) -> bool:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        return bool(poller.poll(1000.0 * timeout_s))


class ForkedChild:
    """An engine process that a fork server has made, or will make."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self.pid: int | None = None
        """None until it has said so."""
        self.status: int | None = None
        """None while it runs; negative: the signal that ended it."""

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, or None if it still runs after so long."""
        deadline_s = time.monotonic() + timeout_s
        left_s = timeout_s
        while self.status is None:
            self._server.listen(max(0.0, left_s))
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0:
                break
        return self.status

    def kill(self) -> None:
        """End it at once. Idempotent."""
        if self.wait(0.0) is not None:
            return
        if self.pid is None:
            # It is not there yet: the fork server itself takes its time, or hangs.
            self._server.kill()
        else:
            os.kill(self.pid, signal.SIGKILL)
            self.wait(KILL_TIMEOUT_S)
