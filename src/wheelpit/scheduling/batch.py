"""What the scheduler hands to the runner for one step, and what the runner hands back."""

from __future__ import annotations

from dataclasses import dataclass

from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """Compute tokens [start, start + num_tokens) of a sequence in this step.

    The sequence's `block_ids` cover them. `samples` is True when the last of them is the
    sequence's last token, so that its logits choose the next one.
    """

    sequence: Sequence
    start: int
    num_tokens: int
    samples: bool


@dataclass(frozen=True, slots=True)
class ScheduledBatch:
    """The work of one step. Empty when there is nothing to do.

    started: those of the sequences that were never scheduled before.
    """

    sequences: tuple[ScheduledSequence, ...]
    started: tuple[Sequence, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(scheduled.num_tokens for scheduled in self.sequences)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The runner's answer for one ScheduledSequence, in the batch's order.

    token_id: None when the chunk did not reach the sequence's end, or on error.
    prompt_logprobs: for the scheduled tokens that belong to the prompt, the distribution that
    *predicts the following prompt token*: entry i scores token start + i + 1. Only if asked for.
    error: why this sequence alone cannot go on (its logits are not finite, say).
    """

    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    error: str | None = None
