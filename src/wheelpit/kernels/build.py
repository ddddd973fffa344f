"""Compile the kernels for this machine, once: later starts find the library in the user's cache.

Used by the engine process before it imports torch, so that the two run side by side: a compiler
takes a second or two for it. Nothing depends on it: without a compiler, or where it fails, plain
torch does the same, slower (`runner/kernel_choice.py`). Linux only: elsewhere the library and torch
might not share their threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = (FOLDER / "cpu.cpp", FOLDER / "draws.cpp")
HEADERS = (FOLDER / "numbers.h",)
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-shared",
)
X86_FLAGS = ("-mprefer-vector-width=512",)
"""Compilers take half of it, where there is more, for the sake of processors of 2017."""

TIMEOUT_S = 60.0


def start_build(folder: Path | None = None) -> Build:
    """Compile in a process of its own, unless that was done before.

    folder: where libraries are kept; the user's cache if left out.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if sys.platform != "linux":
        return Build.none(f"compiled kernels are for Linux, this is {sys.platform}")
    if compiler is None:
        return Build.none(f"there is no C++ compiler ({', '.join(COMPILERS)})")
    try:
        folder = _private_folder() if folder is None else folder
        flags = FLAGS + (X86_FLAGS if platform.machine() == "x86_64" else ())
        command = [compiler, *flags]
        library = folder / f"cpu-{_fingerprint(command)}.so"
        if library.exists():
            return Build(library, None, None)
        descriptor, unfinished = tempfile.mkstemp(".so", "unfinished-", folder)
        os.close(descriptor)
        process = subprocess.Popen(
            [*command, "-o", unfinished, *map(str, SOURCES)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        return Build.none(f"{error}")
    return Build(library, process, Path(unfinished))


class Build:
    """A library that is there, is being made, or cannot be had."""

    def __init__(
        self,
        library: Path | None,
        process: subprocess.Popen[bytes] | None,
        unfinished: Path | None,
        reason: str = "",
    ) -> None:
        """unfinished: what the process writes, in the library's folder."""
        self._library = library
        self._process = process
        self._unfinished = unfinished
        self.reason = reason
        """Why there is none, if there is none."""

    @classmethod
    def none(cls, reason: str) -> Build:
        """There is no library, for this reason."""
        return cls(None, None, None, reason)

    def wait(self) -> Path | None:
        """Return the library when it is finished, or None: `reason` says why."""
        process, self._process = self._process, None
        if process is None:
            return self._library
        assert self._library is not None, "nothing to build"
        assert self._unfinished is not None, "nothing was built"
        try:
            _, errors = process.communicate(timeout=TIMEOUT_S)
            if process.returncode != 0:
                raise OSError(_first_line(errors) or f"it exited with {process.returncode}")
            # In one piece: another process may look for it at any moment.
            self._unfinished.replace(self._library)
        except (OSError, subprocess.TimeoutExpired) as error:
            process.kill()
            process.communicate()
            self._unfinished.unlink(missing_ok=True)
            self._library = None
            self.reason = f"the C++ compiler failed: {error}"
        return self._library


def _private_folder() -> Path:
    """Return the folder for libraries, which nobody else may write to. Raises OSError."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(caches) / "wheelpit"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others may write to {folder}: chmod go-w it")
    return folder


def _fingerprint(command: list[str]) -> str:
    """Name what a library depends on: sources, compiler, flags and processor."""
    compiler = os.stat(command[0])
    parts = [*command, compiler.st_size, compiler.st_mtime_ns, _processor()]
    digest = hashlib.sha256("\n".join(map(str, parts)).encode())
    for file in SOURCES + HEADERS:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:20]


def _processor() -> str:
    """Describe the processor as far as -march=native looks at it."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        first = file.read().partition("\n\n")[0]
    # Not those that vary from moment to moment, such as "cpu MHz".
    kept = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
    return "\n".join(line for line in first.splitlines() if line.startswith(kept))


def _first_line(errors: bytes) -> str:
    text = errors.decode("utf-8", "replace")
    return next((line.strip() for line in text.splitlines() if "error" in line), "")
