"""Which tokens each sequence has had, for penalties: kept from step to step.

Counting anew in each step costs more than all other inputs of a step together.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from wheelpit.scheduling.sequence import Sequence


class TokenHistory:
    """The counts of all sequences that have penalties. Written only by ModelRunner."""

    def __init__(self) -> None:
        self._counts: WeakKeyDictionary[Sequence, TokenCounts] = WeakKeyDictionary()

    def of(self, sequence: Sequence) -> TokenCounts:
        """Return a sequence's counts, with all of its tokens taken in."""
        counts = self._counts.get(sequence)
        if counts is None:
            counts = self._counts[sequence] = TokenCounts(sequence)
        counts.catch_up(sequence.token_ids)
        return counts


class TokenCounts:
    """The distinct tokens of one sequence and how often each is in its output."""

    def __init__(self, sequence: Sequence) -> None:
        prompt = np.array(sequence.token_ids[: sequence.num_prompt_tokens], dtype=np.int64)
        distinct = np.unique(prompt)
        self._num_seen = sequence.num_prompt_tokens
        self._size = len(distinct)
        self._places = dict(zip(distinct.tolist(), range(self._size), strict=True))
        self._token_ids = distinct
        self._num_outputs = np.zeros(self._size, dtype=np.float32)

    @property
    def token_ids(self) -> NDArray[np.int64]:
        return self._token_ids[: self._size]

    @property
    def num_outputs(self) -> NDArray[np.float32]:
        """Of each of token_ids; 0 if it is in the prompt only."""
        return self._num_outputs[: self._size]

    def catch_up(self, token_ids: list[int]) -> None:
        """Take in what was added since the last time. token_ids: all of the sequence's."""
        for token_id in token_ids[self._num_seen :]:
            place = self._places.setdefault(token_id, self._size)
            if place == self._size:
                self._add(token_id)
            self._num_outputs[place] += 1
        self._num_seen = len(token_ids)

    def _add(self, token_id: int) -> None:
        if self._size == len(self._token_ids):
            more = self._size + 16
            self._token_ids = np.concatenate((self._token_ids, np.zeros(more, dtype=np.int64)))
            self._num_outputs = np.concatenate(
                (self._num_outputs, np.zeros(more, dtype=np.float32))
            )
        self._token_ids[self._size] = token_id
        self._size += 1
