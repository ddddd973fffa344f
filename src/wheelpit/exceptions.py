"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.errors import NotFoundError as VLLMNotFoundError
from wheelpit.errors import ValidationError as VLLMValidationError

__all__ = ["VLLMNotFoundError", "VLLMValidationError"]
