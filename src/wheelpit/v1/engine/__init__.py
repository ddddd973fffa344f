"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from __future__ import annotations
