"""Report log-probabilities: of the chosen token and of the most likely ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wheelpit.scheduling.logprobs import TokenLogprobs


def score_tokens(
    logprobs: Tensor, token_ids: Sequence[int], num_tops: Sequence[int]
) -> list[TokenLogprobs]:
    """Describe one token per row, then the row's top tokens.

    logprobs: [R, V] float32, log-softmax of the raw logits. num_tops: how many top tokens each row
    wants, -1 for the whole vocabulary. The token's rank counts those strictly more likely, plus 1.
    """
    vocab_size = logprobs.shape[-1]
    chosen = torch.tensor(token_ids, device=logprobs.device).unsqueeze(-1)
    chosen_logprobs = logprobs.gather(-1, chosen)
    ranks = (logprobs > chosen_logprobs).sum(dim=-1) + 1
    limits = [vocab_size if num < 0 else min(num, vocab_size) for num in num_tops]
    tops = torch.topk(logprobs, max(limits), dim=-1)
    described = []
    for row, (token_id, logprob, rank, limit) in enumerate(
        zip(token_ids, chosen_logprobs.flatten().tolist(), ranks.tolist(), limits, strict=True)
    ):
        described.append(
            TokenLogprobs(
                [token_id, *tops.indices[row, :limit].tolist()],
                [logprob, *tops.values[row, :limit].tolist()],
                [rank, *range(1, limit + 1)],
            )
        )
    return described
