"""Run a command on a pseudo-terminal, type at it and read what it shows."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from typing import Any


class Terminal:
    """One child process whose standard streams are a terminal of its own."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self._master, child = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wheelpit", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            preexec_fn=_own_terminal,
            **options,
        )
        os.close(child)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str, timeout_s: float = 30.0) -> str:
        """Read until `text` has been shown since the last wait; return what came up to it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} was not shown in {timeout_s} s, only {self.shown!r}"
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""
            assert data, f"ended before {text!r} was shown: {self.shown!r}"
            self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def close(self) -> int:
        """Wait for the end (or bring it about) and return the exit status."""
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            os.close(self._master)


def _own_terminal() -> None:
    """Make the pseudo-terminal the controlling one, so that Ctrl-C becomes SIGINT."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
