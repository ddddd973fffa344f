"""`python labkit hint 4a` and `python -m labkit check`: the same commands from any folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if not __package__:  # run as a folder: python ../labkit check
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

COMMANDS = ("check", "hint", "watch")


def main() -> int:
    """Run the command that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print("usage: python -m labkit check | hint TODO [STEP] | watch [PYTEST OPTIONS]")
        return 2
    command = importlib.import_module(f"labkit.{sys.argv[1]}")
    return int(command.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
