"""Counts that are kept from step to step are those counted anew."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wheelpit.request import SamplingParams
from wheelpit.runner.token_history import TokenHistory
from wheelpit.scheduling.sequence import Sequence

tokens = st.lists(st.integers(0, 9), max_size=30)


def make_sequence(prompt: list[int]) -> Sequence:
    return Sequence(
        request_id="r",
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        params=SamplingParams(),
        max_tokens=100,
        seed=0,
    )


@given(tokens.filter(bool), st.lists(tokens, max_size=5))
def test_counts_grow_with_the_sequence(prompt: list[int], pieces: list[list[int]]) -> None:
    history, sequence = TokenHistory(), make_sequence(prompt)
    for piece in [[], *pieces]:
        sequence.token_ids += piece
        counts = history.of(sequence)
        outputs = Counter(sequence.token_ids[len(prompt) :])
        found = zip(counts.token_ids.tolist(), counts.num_outputs.tolist(), strict=True)
        assert dict(found) == {token: outputs[token] for token in sequence.token_ids}
        assert len(counts.token_ids) == len(set(sequence.token_ids))


def test_sequences_are_told_apart_and_let_go() -> None:
    history, one, other = TokenHistory(), make_sequence([1, 2]), make_sequence([3])
    one.token_ids.append(7)
    assert history.of(one).token_ids.tolist() == [1, 2, 7]
    assert history.of(other).token_ids.tolist() == [3]
    gone = weakref.ref(history.of(one))
    del one
    gc.collect()
    assert gone() is None
