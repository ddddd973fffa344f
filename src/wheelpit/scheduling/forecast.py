"""What the recent past says about the near future: what steps cost, how long answers get."""

from __future__ import annotations

from wheelpit.scheduling.sequence import Sequence

STEP_GAIN = 0.1
ANSWER_GAIN = 0.05
"""Share of the newest observation in the running means."""

FASTER_GAIN, SLOWER_GAIN = 0.3, 0.05
"""Likewise for what steps cost on a quiet machine: others' work only ever makes them slower."""

MIN_PREFILL_TOKENS = 16
"""A step's share for prefills, however dear they are: less would hardly be cheaper."""


class Forecast:
    """Running means, unknown before the first step. Written only by Scheduler.

    A step is taken to cost what decoding its sequences alone costs, kept for 1, 2-3, 4-7, ... of
    them apart, plus so much for each prompt token, plus so much for doing both.
    """

    def __init__(self, max_chunk_tokens: int) -> None:
        self._max_chunk_tokens = max_chunk_tokens
        self._step_s: float | None = None
        self._decode_s: dict[int, float] = {}
        self._prefill_token_s: float | None = None
        self._mixing_s: float | None = None
        self._used_share = 1.0

    @property
    def step_s(self) -> float | None:
        """Mean seconds of recent steps; None before the first."""
        return self._step_s

    def on_step(self, seconds: float, num_decodes: int, num_prefill_tokens: int) -> None:
        """Learn from a step that decoded some sequences and computed prompt tokens of others."""
        self._step_s = _mean(self._step_s, seconds, STEP_GAIN)
        size = num_decodes.bit_length()
        if num_prefill_tokens == 0:
            self._decode_s[size] = _low_mean(self._decode_s.get(size), seconds)
        elif num_decodes == 0 and num_prefill_tokens >= MIN_PREFILL_TOKENS:
            each_s = seconds / num_prefill_tokens
            self._prefill_token_s = _low_mean(self._prefill_token_s, each_s)
        elif num_decodes and self._prefill_token_s is not None:
            alone_s = self._decoding_s(num_decodes) or 0.0
            rest_s = seconds - alone_s - num_prefill_tokens * self._prefill_token_s
            self._mixing_s = _low_mean(self._mixing_s, max(0.0, rest_s))

    def on_answer(self, sequence: Sequence) -> None:
        """A sequence has ended by itself, not by an abort."""
        used = sequence.num_output_tokens / sequence.max_tokens
        self._used_share += ANSWER_GAIN * (used - self._used_share)

    def prefill_tokens(self, num_decodes: int, max_slowdown: float) -> int | None:
        """How many prompt tokens a step may compute beside that many decodes without taking more
        than max_slowdown times as long; None if nothing is known that would limit them.
        """
        alone_s = self._decoding_s(num_decodes)
        if alone_s is None or not self._prefill_token_s:
            return None
        room_s = (max_slowdown - 1.0) * alone_s - (self._mixing_s or 0.0)
        return max(MIN_PREFILL_TOKENS, int(room_s / self._prefill_token_s))

    def output_tokens(self, sequence: Sequence) -> int:
        """How long the answer will be in all: `max_tokens`, times the share of it that recent
        answers have used; at least one token more than there is.
        """
        return max(sequence.num_output_tokens + 1, round(self._used_share * sequence.max_tokens))

    def first_token_s(self, sequence: Sequence) -> float:
        """Seconds until its next token, if it is in every step from now on; 0.0 if unknown."""
        gap = sequence.num_tokens - sequence.num_computed_tokens
        return (self._step_s or 0.0) * -(-gap // self._max_chunk_tokens)

    def finish_s(self, sequence: Sequence) -> float:
        """Seconds until its last token, if it is in every step from now on; 0.0 if unknown."""
        num_missing = self.output_tokens(sequence) - sequence.num_output_tokens
        return self.first_token_s(sequence) + (self._step_s or 0.0) * (num_missing - 1)

    def _decoding_s(self, num_decodes: int) -> float | None:
        """Seconds of a step that decodes that many, or as near to it as was seen."""
        size = num_decodes.bit_length()
        nearest = min(self._decode_s, key=lambda seen: abs(seen - size), default=None)
        return None if nearest is None else self._decode_s[nearest]


def _mean(known: float | None, newest: float, gain: float) -> float:
    return newest if known is None else known + gain * (newest - known)


def _low_mean(known: float | None, newest: float) -> float:
    if known is None:
        return newest
    return _mean(known, newest, FASTER_GAIN if newest < known else SLOWER_GAIN)
