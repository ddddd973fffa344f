"""`python -m labkit.check`: can this machine do the labs? One line a thing, and what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

INSTALL = "in the lab's folder: pip install -r requirements.txt"


class Unready(Exception):
    """A check failed; the message says what to do."""


def main(arguments: Sequence[str] = ()) -> int:
    """Check everything, in order, up to the first failure. Return the exit status."""
    print("Is this machine ready for the labs?")
    for name, check in CHECKS:
        try:
            found = check()
        except Unready as problem:
            print(f"[FAIL] {name}: {problem}")
            return 1
        print(f"[OK]   {name}: {found}")
    print("You are ready. The lab's README.md has the steps.")
    return 0


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 older ones get this far, and are told
        raise Unready(f"{version} is too old, the labs need 3.11 or newer")
    return f"{version}, {sys.executable}"


def _pytest() -> str:
    try:
        version = importlib.metadata.version("pytest")
    except importlib.metadata.PackageNotFoundError:
        raise Unready(f"not installed; {INSTALL}") from None
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (8, 4):
        raise Unready(f"{version} is too old, the labs need 8.4 or newer; {INSTALL}")
    return version


def _backend() -> str:
    try:
        from labkit import backend
    except ImportError as error:
        raise Unready(str(error)) from None
    package = sys.modules[backend.PACKAGE]
    return f"{backend.PACKAGE} {package.__version__}, {package.__file__}"


def _model() -> str:
    from labkit import backend

    if backend.BACKEND != "native":
        return f"{backend.DEFAULT_MODEL} (downloaded when it is first used)"
    from wheelpit.models.source import resolve_model

    try:
        folder = resolve_model(backend.DEFAULT_MODEL)
    except Exception as error:
        raise Unready(str(error)) from None
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return f"{backend.DEFAULT_MODEL}, {size / 1e6:.0f} MB, {folder}"


def _engine() -> str:
    from labkit import backend

    async def first_token() -> tuple[float, float]:
        began = time.perf_counter()
        arguments = backend.AsyncEngineArgs(model=backend.DEFAULT_MODEL)
        engine: Any = backend.AsyncLLMEngine.from_engine_args(arguments)
        started = time.perf_counter()
        try:
            params = backend.SamplingParams(temperature=0.0, max_tokens=1)
            prompt = backend.ask("What is a coroutine?")
            async for _ in engine.generate(prompt, params, "check-1"):
                pass
            return started - began, time.perf_counter() - started
        finally:
            await backend.close(engine)

    try:
        start_s, token_s = asyncio.run(first_token())
    except Exception as error:
        raise Unready(f"{type(error).__name__}: {error}") from None
    return f"started in {start_s:.1f} s, one token in {1000 * token_s:.0f} ms"


CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("Python", _python),
    ("pytest", _pytest),
    ("backend", _backend),
    ("model", _model),
    ("engine", _engine),
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
