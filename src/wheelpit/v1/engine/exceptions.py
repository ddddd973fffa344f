"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.errors import EngineDeadError, EngineGenerateError

__all__ = ["EngineDeadError", "EngineGenerateError"]
