"""When a sequence has said enough."""

from __future__ import annotations

from typing import Literal

from wheelpit.scheduling.sequence import Sequence

FinishReason = Literal["stop", "length", "abort", "error"]


def find_stop(sequence: Sequence, max_num_tokens: int) -> tuple[FinishReason, int | None] | None:
    """Decide whether the sequence ends with its last token: (finish reason, stop reason) or None.

    The order is vLLM's: before min_tokens only the length counts; then EOS; then the caller's
    stop tokens; then the length. The stop reason names the token that ended it, except the
    model's own (primary) EOS. max_num_tokens: no sequence may grow beyond this.
    """
    num_output_tokens = len(sequence.token_ids) - sequence.num_prompt_tokens
    params = sequence.params
    if num_output_tokens >= params.min_tokens:
        token_id = sequence.token_ids[-1]
        if token_id in sequence.eos_token_ids:
            return "stop", None if token_id == sequence.primary_eos_token_id else token_id
        if params.stop_token_ids and token_id in params.stop_token_ids:
            return "stop", token_id
    if num_output_tokens >= sequence.max_tokens or len(sequence.token_ids) >= max_num_tokens:
        return "length", None
    return None
