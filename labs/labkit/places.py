"""Where things are: the command that a learner can type here, the engine's folders."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

KIT = Path(__file__).resolve().parent


def command(name: str, *arguments: str) -> str:
    """Return how to run one of the kit's commands from the current folder.

    `python -m labkit.hint 4a` where Python finds labkit by itself: it is in this folder or in the
    environment. Else by its path.
    """
    packages = [folder for folder in sys.path if folder.endswith("-packages")]
    searched = [os.getcwd(), *packages, *_linked(packages)]
    words = " ".join(arguments)
    if importlib.machinery.PathFinder.find_spec("labkit", searched) is not None:
        return f"python -m labkit.{name} {words}".rstrip()
    return f"python {os.path.relpath(KIT)} {name} {words}".rstrip()


def _linked(packages: list[str]) -> list[str]:
    """Return the folders that editable installs put on Python's path."""
    found = []
    for folder in packages:
        for link in Path(folder).glob("*.pth"):
            lines = link.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [line for line in lines if line and not line.startswith("import")]
    return found


def engine_folders() -> list[str]:
    """Return the folders of the packages whose code is ours when it blocks.

    FastAPI's too: building an app takes long on a busy machine, and is not the learner's doing.
    """
    found = []
    for name in ("wheelpit", "vllm", "_pytest", "pluggy", "fastapi", "starlette", "pydantic"):
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            found.append(str(Path(folder).resolve()))
    return found
