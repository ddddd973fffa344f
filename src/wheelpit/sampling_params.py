"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.request import RequestOutputKind, SamplingParams, SamplingType

__all__ = ["RequestOutputKind", "SamplingParams", "SamplingType"]
