"""Log-probabilities as they cross from the runner to the front end."""

from __future__ import annotations

import msgspec


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities at one position: the chosen (or prompt) token first, then the top k.

    The three lists are parallel; ranks count from 1. Raw: before temperature, penalties and bias.
    """

    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int]
