"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.engine.async_engine import AsyncLLM, AsyncLLMEngine

__all__ = ["AsyncLLM", "AsyncLLMEngine"]
