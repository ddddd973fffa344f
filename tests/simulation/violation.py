"""What a simulation ends with when something does not hold."""

from __future__ import annotations


class Violation(BaseException):
    """Something that must hold does not; no fault boundary of the code under test may catch it."""


def demand(is_so: bool, text: str) -> None:
    """Like an assertion, but nobody catches it."""
    if not is_so:
        raise Violation(text)
