"""What the sampler needs to know about the rows of a step, as arrays over rows.

Built once a step from the sequences that sample; empty parts cost nothing. Entries of sparse
edits are parallel arrays (row, token id, ...), each pair at most once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wheelpit.runner.token_history import TokenHistory
from wheelpit.scheduling.batch import ScheduledBatch
from wheelpit.scheduling.sequence import Sequence

Ids = NDArray[np.int64]
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Penalties:
    """One entry per row and distinct token of its prompt and output.

    num_outputs: how often the token is in the output; 0 if in the prompt only.
    """

    rows: Ids
    token_ids: Ids
    num_outputs: Values
    repetition: Values
    frequency: Values
    presence: Values


@dataclass(frozen=True, slots=True)
class LogitEdits:
    """Changes to the logits before the temperature, in the order of the fields.

    allowed_rows, allowed_token_ids: these rows keep these tokens only.
    banned_*: bad words, and what would end a sequence before its min_tokens.
    """

    allowed_rows: Ids
    allowed_token_ids: Ids
    banned_rows: Ids
    banned_token_ids: Ids
    biased_rows: Ids
    biased_token_ids: Ids
    biases: Values
    penalties: Penalties | None

    @property
    def excludes_tokens(self) -> bool:
        """May a row be left without any token?"""
        return bool(len(self.allowed_rows) or len(self.banned_rows))


@dataclass(frozen=True, slots=True)
class RandomDraws:
    """Parameters of the rows that draw at random.

    seeds: 64 bits, as they are. positions: the index in its sequence of the token to draw; with
    the seed, it fixes the noise.
    min_ps, top_ks, top_ps: 0, 0 and 1 keep all.
    """

    rows: Ids
    seeds: NDArray[np.uint64]
    positions: Ids
    temperatures: Values
    min_ps: Values
    top_ks: Ids
    top_ps: Values

    @property
    def is_filtered(self) -> NDArray[np.bool_]:
        """Which rows exclude tokens."""
        return (self.min_ps > 0.0) | (self.top_ks > 0) | (self.top_ps < 1.0)

    def take(self, indices: Ids) -> RandomDraws:
        """Return some of the rows."""
        if len(indices) == len(self.rows):
            return self
        return RandomDraws(
            rows=self.rows[indices],
            seeds=self.seeds[indices],
            positions=self.positions[indices],
            temperatures=self.temperatures[indices],
            min_ps=self.min_ps[indices],
            top_ks=self.top_ks[indices],
            top_ps=self.top_ps[indices],
        )


@dataclass(frozen=True, slots=True)
class SamplingInputs:
    """How to choose a token from each of num_rows rows of logits.

    indices: each row's place in the batch. logprobs: (row, number of top tokens, -1 for all).
    """

    indices: tuple[int, ...]
    edits: LogitEdits | None
    draws: RandomDraws | None
    logprobs: tuple[tuple[int, int], ...]

    @property
    def num_rows(self) -> int:
        return len(self.indices)


def build_sampling_inputs(batch: ScheduledBatch, history: TokenHistory) -> SamplingInputs:
    """Collect the parameters of the sequences that sample in this step."""
    indices = tuple(i for i, scheduled in enumerate(batch.sequences) if scheduled.samples)
    sequences = [batch.sequences[i].sequence for i in indices]
    edited = [row for row, sequence in enumerate(sequences) if _is_edited(sequence)]
    drawn = [row for row, sequence in enumerate(sequences) if not sequence.params.is_greedy]
    return SamplingInputs(
        indices=indices,
        edits=_logit_edits(sequences, edited, history) if edited else None,
        draws=_random_draws(sequences, drawn) if drawn else None,
        logprobs=tuple(
            (row, sequence.params.logprobs)
            for row, sequence in enumerate(sequences)
            if sequence.params.logprobs is not None
        ),
    )


def _is_edited(sequence: Sequence) -> bool:
    params = sequence.params
    return bool(
        params.has_penalties
        or params.logit_bias
        or params.allowed_token_ids
        or sequence.bad_words_token_ids
        or params.min_tokens > sequence.num_output_tokens
    )


def _logit_edits(sequences: list[Sequence], rows: list[int], history: TokenHistory) -> LogitEdits:
    allowed = [(row, token) for row in rows for token in set(_allowed(sequences[row]))]
    banned = [(row, token) for row in rows for token in _banned(sequences[row])]
    biased = [
        (row, token, bias)
        for row in rows
        for token, bias in (sequences[row].params.logit_bias or {}).items()
    ]
    penalised = [row for row in rows if sequences[row].params.has_penalties]
    return LogitEdits(
        allowed_rows=_ids(row for row, _ in allowed),
        allowed_token_ids=_ids(token for _, token in allowed),
        banned_rows=_ids(row for row, _ in banned),
        banned_token_ids=_ids(token for _, token in banned),
        biased_rows=_ids(row for row, _, _ in biased),
        biased_token_ids=_ids(token for _, token, _ in biased),
        biases=_values(bias for _, _, bias in biased),
        penalties=_penalties(sequences, penalised, history) if penalised else None,
    )


def _allowed(sequence: Sequence) -> list[int]:
    return sequence.params.allowed_token_ids or []


def _banned(sequence: Sequence) -> set[int]:
    """Return the tokens that must not come next: bad words' last tokens, early ends."""
    banned = set()
    num_outputs = sequence.num_output_tokens
    for word in sequence.bad_words_token_ids:
        prefix = list(word[:-1])
        if len(prefix) <= num_outputs and (
            not prefix or sequence.token_ids[-len(prefix) :] == prefix
        ):
            banned.add(word[-1])
    if num_outputs < sequence.params.min_tokens:
        banned |= sequence.eos_token_ids
        banned.update(sequence.params.stop_token_ids or ())
    return banned


def _penalties(sequences: list[Sequence], rows: list[int], history: TokenHistory) -> Penalties:
    had = [history.of(sequences[row]) for row in rows]
    counts = [len(each.token_ids) for each in had]
    params = [sequences[row].params for row in rows]
    return Penalties(
        rows=np.repeat(_ids(rows), counts),
        token_ids=np.concatenate([each.token_ids for each in had]),
        num_outputs=np.concatenate([each.num_outputs for each in had]),
        repetition=np.repeat(_values(p.repetition_penalty for p in params), counts),
        frequency=np.repeat(_values(p.frequency_penalty for p in params), counts),
        presence=np.repeat(_values(p.presence_penalty for p in params), counts),
    )


def _random_draws(sequences: list[Sequence], rows: list[int]) -> RandomDraws:
    drawn = [sequences[row] for row in rows]
    params = [sequence.params for sequence in drawn]
    return RandomDraws(
        rows=_ids(rows),
        seeds=np.fromiter((sequence.seed % 2**64 for sequence in drawn), dtype=np.uint64),
        positions=_ids(sequence.num_tokens for sequence in drawn),
        temperatures=_values(p.temperature for p in params),
        min_ps=_values(p.min_p for p in params),
        top_ks=_ids(p.top_k for p in params),
        top_ps=_values(p.top_p for p in params),
    )


def _ids(values: Iterable[int]) -> Ids:
    return np.fromiter(values, dtype=np.int64)


def _values(values: Iterable[float]) -> Values:
    return np.fromiter(values, dtype=np.float32)
