"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from __future__ import annotations

import uuid


def random_uuid() -> str:
    """32 random hexadecimal digits, for a request id."""
    return uuid.uuid4().hex
