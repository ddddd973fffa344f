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
            ready, _, _ = select.select(
                [self._master], [], [], max(0.0, deadline - time.monotonic())
            )
            assert ready, f"{text!r} was not shown in {timeout_s} s, only {self.shown!r}"
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""
            assert data, f"ended before {text!r} was shown: {self.shown!r}"
            self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C until `text` is shown.

        Python notices one that comes just before it waits for a key only at the next key.
        """
        while True:
            self.type("\x03")
            try:
                self.wait_for(text, timeout_s=1.0)
            except AssertionError:
                assert self.process.poll() is None, f"Ctrl-C ended it: {self.shown!r}"
            else:
                return

    def close(self) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(timeout=20)

    def kill(self) -> None:
        """Bring the end about, if need be, and give everything back."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def _own_terminal() -> None:
    """Make the pseudo-terminal the controlling one, so that Ctrl-C becomes SIGINT."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
