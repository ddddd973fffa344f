"""Wheelpit: async online LLM serving.

The names below are the public API, under the names of vLLM's. They are imported when first used:
`import wheelpit` is quick and brings no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wheelpit.engine.arg_utils import AsyncEngineArgs, EngineArgs
    from wheelpit.engine.async_engine import AsyncLLM, AsyncLLMEngine
    from wheelpit.errors import (
        ClientError,
        ConfigError,
        EngineDeadError,
        EngineGenerateError,
        EngineStartError,
        ModelLoadError,
        NotFoundError,
        OverloadedError,
        ServerError,
        ValidationError,
        WheelpitError,
    )
    from wheelpit.llm import LLM
    from wheelpit.request import (
        CompletionOutput,
        Logprob,
        PromptType,
        RequestOutput,
        RequestOutputKind,
        RequestProgress,
        SamplingParams,
        TextPrompt,
        TokensPrompt,
    )

__version__ = "0.1.0"
__version_tuple__ = (0, 1, 0)

_MODULES = {
    "wheelpit.engine.arg_utils": ("AsyncEngineArgs", "EngineArgs"),
    "wheelpit.engine.async_engine": ("AsyncLLM", "AsyncLLMEngine"),
    "wheelpit.errors": (
        "ClientError",
        "ConfigError",
        "EngineDeadError",
        "EngineGenerateError",
        "EngineStartError",
        "ModelLoadError",
        "NotFoundError",
        "OverloadedError",
        "ServerError",
        "ValidationError",
        "WheelpitError",
    ),
    "wheelpit.llm": ("LLM",),
    "wheelpit.request": (
        "CompletionOutput",
        "Logprob",
        "PromptType",
        "RequestOutput",
        "RequestOutputKind",
        "RequestProgress",
        "SamplingParams",
        "TextPrompt",
        "TokensPrompt",
    ),
}

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "LLM",
    "AsyncEngineArgs",
    "AsyncLLM",
    "AsyncLLMEngine",
    "ClientError",
    "CompletionOutput",
    "ConfigError",
    "EngineArgs",
    "EngineDeadError",
    "EngineGenerateError",
    "EngineStartError",
    "Logprob",
    "ModelLoadError",
    "NotFoundError",
    "OverloadedError",
    "PromptType",
    "RequestOutput",
    "RequestOutputKind",
    "RequestProgress",
    "SamplingParams",
    "ServerError",
    "TextPrompt",
    "TokensPrompt",
    "ValidationError",
    "WheelpitError",
    "__version__",
    "__version_tuple__",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
