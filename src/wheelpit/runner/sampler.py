"""Choose each sequence's next token from its logits.

The order: allowed tokens, bad words, bias and min_tokens, penalties; greedy rows take the largest
here; then temperature, min_p, top_k, top_p and a Gumbel-max draw (argmax of logits + noise is a
sample of their softmax). A step pays for what its rows ask for: all greedy is one argmax.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wheelpit.runner.logprobs import score_tokens
from wheelpit.runner.noise import GumbelNoise
from wheelpit.runner.sampling_inputs import LogitEdits, Penalties, RandomDraws, SamplingInputs
from wheelpit.scheduling.batch import SampledToken

NOT_FINITE = "the model's logits are not finite"
NOTHING_LEFT = (
    "no token is left to choose from: allowed_token_ids, bad_words, min_tokens or logit_bias "
    "exclude them all"
)

SORTED_PREFIX = 256
"""top_p first looks at this many tokens: they nearly always hold the mass it wants."""


def sample(logits: Tensor, inputs: SamplingInputs, noise: GumbelNoise) -> list[SampledToken]:
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
        for row in (logits.amax(dim=-1) == -torch.inf).nonzero().flatten().tolist():
            errors.setdefault(row, NOTHING_LEFT)
    token_ids = _choose(logits, inputs.draws, noise)
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


def _choose(logits: Tensor, draws: RandomDraws | None, noise: GumbelNoise) -> list[int]:
    if draws is None:
        return _argmax(logits)
    if len(draws.rows) == len(logits):
        return _argmax(_perturb(logits, draws, noise))
    token_ids = _argmax(logits)
    rows = torch.from_numpy(draws.rows).to(logits.device)
    drawn = _argmax(_perturb(logits[rows], draws, noise))
    for row, token_id in zip(draws.rows.tolist(), drawn, strict=True):
        token_ids[row] = token_id
    return token_ids


def _argmax(logits: Tensor) -> list[int]:
    """Return the first largest of each row. numpy's takes a tenth of torch's time on a CPU."""
    if logits.device.type == "cpu":
        found: list[int] = logits.numpy().argmax(axis=-1).tolist()
    else:
        found = logits.argmax(dim=-1).tolist()
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


def _perturb(logits: Tensor, draws: RandomDraws, noise: GumbelNoise) -> Tensor:
    """Return temperature-scaled, filtered logits plus noise, [R, V]."""
    device = logits.device
    logits = logits.div_(torch.from_numpy(draws.temperatures).to(device).unsqueeze(-1))
    if draws.min_ps is not None:
        # p >= min_p * max(p), in log space; log(0) = -inf keeps all.
        floor = torch.from_numpy(draws.min_ps).to(device).log().unsqueeze(-1)
        floor += logits.amax(dim=-1, keepdim=True)
        logits.masked_fill_(logits < floor, -torch.inf)
    if draws.top_ks is not None or draws.top_ps is not None:
        floor = _top_k_top_p_floor(logits, draws)
        logits.masked_fill_(logits < floor, -torch.inf)
    return logits + noise(draws.seeds, draws.positions, logits.shape[-1]).to(device)


def _top_k_top_p_floor(logits: Tensor, draws: RandomDraws) -> Tensor:
    """Return the smallest logit that both filters keep, [R, 1]; ties with it are kept, too."""
    vocab_size = logits.shape[-1]
    limits = np.full(len(draws.rows), vocab_size)
    if draws.top_ks is not None:
        limits = np.where(draws.top_ks > 0, np.minimum(draws.top_ks, vocab_size), vocab_size)
    widest = int(limits[limits < vocab_size].max(initial=1))
    top_ks = torch.from_numpy(limits).to(logits.device).unsqueeze(-1)
    if draws.top_ps is None:
        floor = torch.topk(logits, widest, dim=-1).values.gather(-1, top_ks.clamp_max(widest) - 1)
        return floor.masked_fill_(top_ks == vocab_size, -torch.inf)
    top_ps = torch.from_numpy(draws.top_ps).to(logits.device).unsqueeze(-1)
    if widest <= SORTED_PREFIX < vocab_size:
        found = _top_p_floor(logits, SORTED_PREFIX, top_ks, top_ps)
        if found is not None:
            return found
    found = _top_p_floor(logits, vocab_size, top_ks, top_ps)
    assert found is not None
    return found


def _top_p_floor(logits: Tensor, width: int, top_ks: Tensor, top_ps: Tensor) -> Tensor | None:
    """Find the floor, [R, 1], among each row's `width` largest; None if some row's lies below.

    top_p keeps the fewest most likely of the top_k tokens whose probabilities, relative to all
    top_k, reach it. top_ks: [R, 1], V for all, else at most width. top_ps: [R, 1].
    """
    is_limited = top_ks < logits.shape[-1]
    ordered = torch.topk(logits, width, dim=-1).values  # [R, width], largest first
    is_beyond = torch.arange(width, device=logits.device) >= top_ks
    ordered.masked_fill_(is_beyond, -torch.inf)
    log_mass = torch.where(
        is_limited,
        ordered.logsumexp(dim=-1, keepdim=True),
        logits.logsumexp(dim=-1, keepdim=True),
    )
    probs = (ordered - log_mass).exp()
    is_kept = (probs.cumsum(dim=-1) - probs < top_ps) | (top_ps >= 1.0)
    counts = (is_kept & ~is_beyond).sum(dim=-1, keepdim=True).clamp_min(1)
    is_unknown = (counts == width) & ~is_limited & (top_ps < 1.0)
    if width < logits.shape[-1] and bool(is_unknown.any()):
        return None
    floor = ordered.gather(-1, counts - 1)
    return floor.masked_fill_((top_ps >= 1.0) & ~is_limited, -torch.inf)
