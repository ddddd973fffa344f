"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from __future__ import annotations

import enum


class UsageContext(enum.Enum):
    """Who started an engine. Accepted by `from_engine_args` and without effect: nothing is sent."""

    UNKNOWN_CONTEXT = "UNKNOWN_CONTEXT"
    LLM_CLASS = "LLM_CLASS"
    API_SERVER = "API_SERVER"
    OPENAI_API_SERVER = "OPENAI_API_SERVER"
    ENGINE_CONTEXT = "ENGINE_CONTEXT"
