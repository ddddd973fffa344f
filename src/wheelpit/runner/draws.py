"""Draw tokens at random from temperature-scaled logits, under min_p, top_k and top_p.

Gumbel-max: the argmax of logits + noise is a sample of their softmax. Only tokens that the filters
keep need noise, and those are mostly among the first few, so rows look at a short prefix of their
most likely tokens first. Whether a row looks further depends on that row alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheelpit.kernels.compiled import DrawTokens
from wheelpit.runner.noise import GumbelNoise
from wheelpit.runner.sampling_inputs import RandomDraws

PREFIX = 64
"""How many tokens a row looks at before it looks at all.

One row of torch.topk out of 8192 takes 14 us for 64, sorting all their values in numpy 110 us (one
thread, Zen 4).
"""


class Drawer(Protocol):
    """Chooses tokens at random; `NumpyDrawer` is the specification."""

    def __call__(self, logits: Tensor, draws: RandomDraws) -> NDArray[np.int64]:
        """Sample a token per row. logits: [R, V] float32, the rows of `draws`; scaled in place."""
        ...


class NumpyDrawer:
    """Draws with torch and numpy, from logits on any device."""

    def __init__(self) -> None:
        self._noise = GumbelNoise()

    def __call__(self, logits: Tensor, draws: RandomDraws) -> NDArray[np.int64]:
        noise = self._noise
        logits.div_(torch.from_numpy(draws.temperatures).to(logits.device).unsqueeze(-1))
        token_ids = np.empty(len(logits), dtype=np.int64)
        free = np.flatnonzero(~draws.is_filtered)
        if len(free):
            token_ids[free] = _draw_from_all(_rows(logits, free), draws.take(free), noise)
        rows = np.flatnonzero(draws.is_filtered)
        if len(rows) and logits.shape[-1] > PREFIX:
            found, is_known = _draw_from_prefix(_rows(logits, rows), draws.take(rows), noise)
            token_ids[rows[is_known]] = found[is_known]
            rows = rows[~is_known]
        if len(rows):
            chosen, part = draws.take(rows), _rows(logits, rows)
            kept = torch.where(part >= _floor(part, chosen), part, -torch.inf)
            token_ids[rows] = _draw_from_all(kept, chosen, noise)
        return token_ids


class CompiledDrawer:
    """Draws with the compiled kernels, from logits on the CPU."""

    def __init__(self, draw_tokens: DrawTokens) -> None:
        self._draw_tokens = draw_tokens

    def __call__(self, logits: Tensor, draws: RandomDraws) -> NDArray[np.int64]:
        return self._draw_tokens(
            logits,
            draws.temperatures,
            draws.min_ps,
            draws.top_ks,
            draws.top_ps,
            draws.seeds,
            draws.positions,
        )


def argmax(logits: Tensor) -> NDArray[np.int64]:
    """Return the first largest of each row. numpy's takes a tenth of torch's time on a CPU."""
    if logits.device.type == "cpu":
        found: NDArray[np.int64] = logits.numpy().argmax(axis=-1)
        return found
    return logits.argmax(dim=-1).cpu().numpy()


def _rows(logits: Tensor, rows: NDArray[np.int64]) -> Tensor:
    if len(rows) == len(logits):
        return logits
    return logits[torch.from_numpy(rows).to(logits.device)]


def _draw_from_all(logits: Tensor, draws: RandomDraws, noise: GumbelNoise) -> NDArray[np.int64]:
    drawn = noise(draws.seeds.tolist(), draws.positions.tolist(), logits.shape[-1]).to(
        logits.device
    )
    return argmax(drawn.add_(logits))


def _draw_from_prefix(
    logits: Tensor, draws: RandomDraws, noise: GumbelNoise
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw among each row's most likely tokens; say for which rows that was enough."""
    top = torch.topk(logits, PREFIX, dim=-1)
    values, ids = top.values.cpu().numpy(), top.indices.cpu().numpy()
    is_known = _filter(values, logits, draws)
    values += noise(draws.seeds.tolist(), draws.positions.tolist(), logits.shape[-1], ids).numpy()
    return ids[np.arange(len(ids)), values.argmax(axis=-1)], is_known


def _floor(logits: Tensor, draws: RandomDraws) -> Tensor:
    """Return the smallest logit that the filters keep, [R, 1]; ties with it are kept, too."""
    # numpy's sort takes a fifth of the time of torch's, which also says where each value was.
    values = np.negative(np.sort(np.negative(logits.cpu().numpy()), axis=-1))
    _filter(values, logits, draws)
    counts = np.maximum((values > -np.inf).sum(axis=-1), 1)
    floor = values[np.arange(len(values)), counts - 1]
    return torch.from_numpy(floor).to(logits.device).unsqueeze(-1)


def _filter(values: NDArray[np.float32], logits: Tensor, draws: RandomDraws) -> NDArray[np.bool_]:
    """Set to -inf the values that a filter excludes; return which rows keep none beyond them.

    values: [R, W], the largest of logits [R, V] in descending order. Returns [R].

    min_p keeps tokens at least that fraction as likely as the likeliest, top_k the first k of
    those, top_p the fewest of those whose probabilities, relative to all of those, reach it.
    """
    width, vocab_size = values.shape[-1], logits.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):  # log(0) and rows of -inf are meant
        floors = values[:, :1] + np.log(draws.min_ps)[:, None]
        top_ks = np.where(draws.top_ks > 0, draws.top_ks, vocab_size)
        values[(values < floors) | (np.arange(width) >= top_ks[:, None])] = -np.inf
        is_complete = (values[:, -1] == -np.inf) | (top_ks <= width) | (width == vocab_size)
        weights = np.exp(values - values[:, :1])
        before = weights.cumsum(axis=-1) - weights
        mass = weights.sum(axis=-1)
        if not is_complete.all():
            whole = np.exp(logits.logsumexp(dim=-1).cpu().numpy() - values[:, 0])
            mass = np.where(is_complete, mass, whole)
        is_tail = before >= (np.where(draws.top_ps < 1.0, draws.top_ps, np.inf) * mass)[:, None]
    is_tail[:, 0] = False
    values[is_tail] = -np.inf
    # Where min_p keeps tokens beyond the prefix, `whole` counts some that it excludes.
    is_known: NDArray[np.bool_] = is_complete | (is_tail[:, -1] & (draws.min_ps == 0.0))
    return is_known
