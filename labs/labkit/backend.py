"""The engine that a lab runs on: Wheelpit by default, real vLLM with LAB_BACKEND=vllm.

The labs import the engine's classes from here and from nowhere else, so that one variable changes
the engine. Both packages use the same names for the same things. Without an installed wheelpit the
source tree around the labs is used. `LLM` is imported when first asked for: it is slow to import,
and Lab 02 does without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

PACKAGES = {"native": "wheelpit", "vllm": "vllm"}
"""LAB_BACKEND -> the package that has the engine."""

BACKEND = os.environ.get("LAB_BACKEND") or "native"
if BACKEND not in PACKAGES:
    raise ImportError(f"LAB_BACKEND is {BACKEND!r}, must be one of: {', '.join(PACKAGES)}")

PACKAGE = PACKAGES[BACKEND]

SOURCE = Path(__file__).resolve().parents[2] / "src"
"""Where wheelpit is in a clone; elsewhere this folder does not exist or has no wheelpit."""

DEFAULT_MODEL = {"native": "builtin", "vllm": "Qwen/Qwen3-0.6B"}[BACKEND]

IS_BATCH_INVARIANT = BACKEND == "native"
"""A greedy request gives the same text alone and beside others."""

START_LIMIT_S = {"native": 60.0, "vllm": 900.0}[BACKEND]
"""How long an engine may take to start before we call it a hang."""

# Grading runs two engines at once, and a learner may have a server running as well. Compute threads
# that spin while they wait slow each other down a hundredfold when they outnumber the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if importlib.util.find_spec(PACKAGE) is None and BACKEND == "native":
    sys.path.append(str(SOURCE))

try:
    if TYPE_CHECKING:
        from wheelpit import AsyncEngineArgs, AsyncLLMEngine, RequestOutput, SamplingParams
    else:
        _package = importlib.import_module(PACKAGE)
        AsyncEngineArgs = _package.AsyncEngineArgs
        AsyncLLMEngine = _package.AsyncLLMEngine
        RequestOutput = _package.RequestOutput
        SamplingParams = _package.SamplingParams
except ModuleNotFoundError as error:
    raise ImportError(
        f"cannot import AsyncLLMEngine: {error.name} is not installed in {sys.prefix}. "
        "In the lab's folder: pip install -r requirements.txt"
    ) from None

__all__ = [
    "DEFAULT_MODEL",
    "AsyncEngineArgs",
    "AsyncLLMEngine",
    "RequestOutput",
    "SamplingParams",
    "ask",
    "stop_at_open_todo",
]


def __getattr__(name: str) -> Any:
    if name == "LLM":
        return importlib.import_module(PACKAGE).LLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def ask(question: str) -> str:
    """Return the prompt that makes the default model answer a question.

    A chat model answers only what looks like a chat: the question, then the place where its own
    words begin. Engines have `get_tokenizer().apply_chat_template` for any model; the two default
    models use the same few markers.
    """
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


@contextmanager
def stop_at_open_todo() -> Iterator[None]:
    """End the program with one line, not a traceback, where a TODO is still open."""
    try:
        yield
    except NotImplementedError as error:
        todo, colon, _ = str(error).partition(":")
        if not (todo.startswith("TODO") and colon):
            raise
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        file = Path(traceback.tb_frame.f_code.co_filename).name if traceback else "starter.py"
        line = traceback.tb_lineno if traceback else 1
        print(f"{todo} is still open: {file}, line {line}")
        sys.exit(1)


async def close(engine: Any) -> None:
    """Shut an engine down, whatever its version calls that."""
    shutdown = getattr(engine, "shutdown", None)
    if shutdown is None:
        return
    ended = shutdown()
    if hasattr(ended, "__await__"):
        await ended


def num_in_flight(engine: Any) -> int | None:
    """Ask the engine how many requests it still has; None where it cannot say."""
    return engine.stats().num_requests if BACKEND == "native" else None


@contextmanager
def any_engine_args() -> Iterator[None]:
    """Let engine arguments be built with values that this machine could not run.

    Grading asks for two GPUs to see whether the argument arrives; no engine is started with it.
    """
    checked = AsyncEngineArgs.__dict__.get("__post_init__")
    AsyncEngineArgs.__post_init__ = lambda self: None
    try:
        yield
    finally:
        if checked is None:
            del AsyncEngineArgs.__post_init__
        else:
            AsyncEngineArgs.__post_init__ = checked
