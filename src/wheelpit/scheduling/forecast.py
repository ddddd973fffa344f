"""What the recent past says about the near future: seconds a step, tokens an answer."""

from __future__ import annotations

from wheelpit.scheduling.sequence import Sequence

STEP_GAIN = 0.1
ANSWER_GAIN = 0.05
"""Share of the newest observation in the running means."""


class Forecast:
    """Running means, unknown before the first step. Written only by Scheduler."""

    def __init__(self, max_chunk_tokens: int) -> None:
        self._max_chunk_tokens = max_chunk_tokens
        self._step_s: float | None = None
        self._used_share = 1.0

    @property
    def step_s(self) -> float | None:
        """Mean seconds of recent steps; None before the first."""
        return self._step_s

    def on_step(self, seconds: float) -> None:
        known = seconds if self._step_s is None else self._step_s
        self._step_s = known + STEP_GAIN * (seconds - known)

    def on_answer(self, sequence: Sequence) -> None:
        """A sequence has ended by itself, not by an abort."""
        used = sequence.num_output_tokens / sequence.max_tokens
        self._used_share += ANSWER_GAIN * (used - self._used_share)

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
