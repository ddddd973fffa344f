"""`wheelpit version`: what is installed, for a bug report."""

from __future__ import annotations

import platform
from importlib import metadata

import wheelpit

SHOWN = ("torch", "triton", "tokenizers", "fastapi", "uvicorn")


def version() -> None:
    """Print the versions of Wheelpit, Python and what Wheelpit stands on."""
    print(f"wheelpit {wheelpit.__version__}")
    system = f"{platform.system()} {platform.machine()}"
    print(f"python {platform.python_version()} ({system})")
    for name in SHOWN:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} is not installed")
