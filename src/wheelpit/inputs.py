"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.request import PromptType, TextPrompt, TokensPrompt

__all__ = ["PromptType", "TextPrompt", "TokensPrompt"]
