"""`python -m labkit.watch`: grade the lab in this folder again whenever the file is saved.

What follows goes to pytest: `python -m labkit.watch -k todo4a`. Ctrl-C ends it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from labkit.lab import target_in

LOOK_S = 0.2


def main(arguments: Sequence[str]) -> int:
    """Grade, wait for the next save, grade again."""
    folder = Path.cwd()
    target = target_in(folder)
    if not (folder / "test_lab.py").is_file():
        print("There is no test_lab.py here: run this in the lab's folder.")
        return 2
    try:
        while True:
            saved = _stamp(target)
            print(f"--- {target.name} ---", flush=True)
            _grade(arguments)
            print(f"\nWaiting for {target.name} to be saved (Ctrl-C ends this)", flush=True)
            while _stamp(target) == saved:
                time.sleep(LOOK_S)
    except KeyboardInterrupt:
        print()
        return 0


def _grade(arguments: Sequence[str]) -> None:
    quiet = ["-q", "--no-header", "-rN", "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, "-m", "pytest", "test_lab.py", *quiet, *arguments], check=False)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is saved; None while it is away, as some editors do it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
