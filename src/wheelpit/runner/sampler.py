"""Choose each sequence's next token from its logits.

The order: allowed tokens, bad words, bias and min_tokens, penalties; greedy rows take the largest
here; then temperature, min_p, top_k, top_p and a Gumbel-max draw (argmax of logits + noise is a
sample of their softmax). A step pays for what its rows ask for: all greedy is one argmax.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wheelpit.runner.draws import Drawer, argmax
from wheelpit.runner.logprobs import score_tokens
from wheelpit.runner.sampling_inputs import LogitEdits, Penalties, RandomDraws, SamplingInputs
from wheelpit.scheduling.batch import SampledToken

NOT_FINITE = "the model's logits are not finite"
NOTHING_LEFT = (
    "no token is left to choose from: allowed_token_ids, bad_words, min_tokens or logit_bias "
    "exclude them all"
)


def sample(logits: Tensor, inputs: SamplingInputs, draw: Drawer) -> list[SampledToken]:
    """Return a token, or an error, per row.

    logits: [B, V] float32; edited in place. A row that is not finite spoils only itself.
    """
    errors = _find_not_finite(logits)
    raw = None
    if inputs.logprobs:
        rows = torch.tensor([row for row, _ in inputs.logprobs], device=logits.device)
        raw = logits[rows].log_softmax(dim=-1)
    if inputs.edits is not None:
        _apply_edits(logits, inputs.edits)
        if inputs.edits.excludes_tokens:
            for row in (logits.amax(dim=-1) == -torch.inf).nonzero().flatten().tolist():
                errors.setdefault(row, NOTHING_LEFT)
    token_ids = _choose(logits, inputs.draws, draw)
    tokens = [SampledToken(token_id=token_id) for token_id in token_ids]
    if raw is not None:
        chosen = [token_ids[row] for row, _ in inputs.logprobs]
        scores = score_tokens(raw, chosen, [num_top for _, num_top in inputs.logprobs])
        for (row, _), score in zip(inputs.logprobs, scores, strict=True):
            tokens[row] = SampledToken(token_id=token_ids[row], logprobs=score)
    for row, message in errors.items():
        tokens[row] = SampledToken(error=message)
    return tokens


def _find_not_finite(logits: Tensor) -> dict[int, str]:
    # A sum is an eighth of the price of isfinite, and only a finite row has a finite one.
    if bool(torch.isfinite(logits.sum())):
        return {}
    is_finite = torch.isfinite(logits).all(dim=-1)
    return dict.fromkeys((~is_finite).nonzero().flatten().tolist(), NOT_FINITE)


def _choose(logits: Tensor, draws: RandomDraws | None, draw: Drawer) -> list[int]:
    if draws is not None and len(draws.rows) == len(logits):
        token_ids = draw(logits, draws)
    else:
        token_ids = argmax(logits)
        if draws is not None:
            rows = torch.from_numpy(draws.rows).to(logits.device)
            token_ids[draws.rows] = draw(logits[rows], draws)
    found: list[int] = token_ids.tolist()
    return found


def _apply_edits(logits: Tensor, edits: LogitEdits) -> None:
    """Mask, bias and penalise single logits, in place."""
    device = logits.device
    if len(edits.allowed_rows):
        rows = torch.from_numpy(edits.allowed_rows).to(device)
        columns = torch.from_numpy(edits.allowed_token_ids).to(device)
        kept = logits[rows, columns]
        logits[rows] = -torch.inf
        logits[rows, columns] = kept
    if len(edits.banned_rows):
        rows = torch.from_numpy(edits.banned_rows).to(device)
        logits[rows, torch.from_numpy(edits.banned_token_ids).to(device)] = -torch.inf
    if len(edits.biased_rows):
        rows = torch.from_numpy(edits.biased_rows).to(device)
        columns = torch.from_numpy(edits.biased_token_ids).to(device)
        logits[rows, columns] += torch.from_numpy(edits.biases).to(device)
    if edits.penalties is not None:
        _apply_penalties(logits, edits.penalties)


def _apply_penalties(logits: Tensor, penalties: Penalties) -> None:
    """Repetition divides positive logits and multiplies negative ones, of prompt and output.

    Frequency is subtracted once per occurrence in the output, presence once if there is any.
    """

    def on_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(logits.device)

    rows, columns = on_device(penalties.rows), on_device(penalties.token_ids)
    repetition = on_device(penalties.repetition)
    num_outputs = on_device(penalties.num_outputs)
    values = logits[rows, columns]
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= on_device(penalties.frequency) * num_outputs
    values -= on_device(penalties.presence) * (num_outputs > 0)
    logits[rows, columns] = values
