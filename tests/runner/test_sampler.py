"""The sampler against the same rules written row by row in plain Python."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wheelpit.kernels import compiled
from wheelpit.request import SamplingParams
from wheelpit.runner.draws import CompiledDrawer, Drawer, NumpyDrawer
from wheelpit.runner.noise import GumbelNoise
from wheelpit.runner.sampler import NOT_FINITE, NOTHING_LEFT, sample
from wheelpit.runner.sampling_inputs import build_sampling_inputs
from wheelpit.runner.token_history import TokenHistory
from wheelpit.scheduling.batch import SampledToken, ScheduledBatch, ScheduledSequence
from wheelpit.scheduling.sequence import Sequence

VOCAB = 24
EOS = 2


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def draw(request: pytest.FixtureRequest) -> Drawer:
    if request.param == "numpy":
        return NumpyDrawer()
    library: Path = request.getfixturevalue("kernel_library")
    return CompiledDrawer(compiled.DrawTokens(compiled.load(library)))


@dataclass
class Row:
    """One sequence and its logits."""

    params: SamplingParams
    prompt: list[int]
    output: list[int]
    seed: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()

    def scheduled(self) -> ScheduledSequence:
        tokens = self.prompt + self.output
        sequence = Sequence(
            request_id="r",
            token_ids=tokens,
            num_prompt_tokens=len(self.prompt),
            params=self.params,
            eos_token_ids=frozenset() if self.params.ignore_eos else frozenset({EOS}),
            bad_words_token_ids=self.bad_words,
            max_tokens=100,
            seed=self.seed,
        )
        return ScheduledSequence(sequence, len(tokens) - 1, 1, True)


def run(rows: list[Row], logits: Tensor, draw: Drawer) -> list[SampledToken]:
    batch = ScheduledBatch(tuple(row.scheduled() for row in rows))
    inputs = build_sampling_inputs(batch, TokenHistory())
    return sample(logits.clone(), inputs, draw)


def choose_naively(row: Row, logits: list[float]) -> int | None:
    """Follow the documented order with floats; None if no token is left."""
    params = row.params
    values = dict(enumerate(logits))
    if params.allowed_token_ids:
        values = {t: v for t, v in values.items() if t in params.allowed_token_ids}
    for word in row.bad_words:
        prefix = list(word[:-1])
        if row.output[len(row.output) - len(prefix) :] == prefix:
            values.pop(word[-1], None)
    for token, bias in (params.logit_bias or {}).items():
        if token in values:
            values[token] += bias
    if len(row.output) < params.min_tokens:
        for token in [*(params.stop_token_ids or ()), *([] if params.ignore_eos else [EOS])]:
            values.pop(token, None)
    for token in set(row.prompt + row.output) & set(values):
        value = values[token]
        scale = params.repetition_penalty
        value = value / scale if value > 0 else value * scale
        count = row.output.count(token)
        values[token] = value - params.frequency_penalty * count
        values[token] -= params.presence_penalty * (count > 0)
    if not values:
        return None
    if params.is_greedy:
        return max(values, key=lambda token: (values[token], -token))
    values = {token: value / params.temperature for token, value in values.items()}
    top = max(values.values())
    if params.min_p > 0:
        floor = top + math.log(params.min_p)
        values = {token: value for token, value in values.items() if value >= floor}
    ordered = sorted(values, key=lambda token: -values[token])
    if params.top_k > 0:
        ordered = ordered[: params.top_k]
    weights = [math.exp(values[token] - top) for token in ordered]
    kept, before = [], 0.0
    for token, weight in zip(ordered, weights, strict=True):
        if before / sum(weights) < params.top_p:
            kept.append(token)
        before += weight
    noise = GumbelNoise()([row.seed], [len(row.prompt + row.output)], VOCAB)[0].tolist()
    return max(kept, key=lambda token: values[token] + noise[token])


tokens = st.integers(0, VOCAB - 1)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    maybe = st.booleans()
    given: dict[str, Any] = {"temperature": draw(st.sampled_from([0.0, 0.5, 1.0, 1.7]))}
    if draw(maybe):
        given["presence_penalty"] = draw(st.sampled_from([-0.7, 0.31, 1.9]))
    if draw(maybe):
        given["frequency_penalty"] = draw(st.sampled_from([-0.63, 0.57, 1.3]))
    if draw(maybe):
        given["repetition_penalty"] = draw(st.sampled_from([0.8, 1.3, 2.1]))
    if draw(maybe):
        given["logit_bias"] = draw(
            st.dictionaries(tokens, st.sampled_from([-5.0, 1.7]), max_size=3)
        )
    if draw(maybe):
        given["allowed_token_ids"] = draw(st.lists(tokens, min_size=1, max_size=9))
    if draw(maybe):
        given |= {"min_tokens": draw(st.integers(1, 4)), "stop_token_ids": draw(st.lists(tokens))}
    if draw(maybe):
        given["ignore_eos"] = True
    if draw(maybe):
        given["top_k"] = draw(st.integers(1, VOCAB + 3))
    if draw(maybe):
        given["top_p"] = draw(st.sampled_from([0.013, 0.37, 0.81, 0.97]))
    if draw(maybe):
        given["min_p"] = draw(st.sampled_from([0.011, 0.13, 0.97]))
    words = st.lists(tokens, min_size=1, max_size=3).map(tuple)
    return Row(
        SamplingParams(**given),
        draw(st.lists(tokens, min_size=1, max_size=6)),
        draw(st.lists(tokens, max_size=6)),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        bad_words=tuple(draw(st.lists(words, max_size=3))),
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(rows(), min_size=1, max_size=5), st.integers(0, 2**32))
def test_each_row_is_chosen_as_the_rules_say(draw: Drawer, batch: list[Row], seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (len(batch), VOCAB)))
    logits = logits.float()
    for row, values, token in zip(batch, logits, run(batch, logits, draw), strict=True):
        expected = choose_naively(row, values.tolist())
        if expected is None:
            assert token.error == NOTHING_LEFT
        else:
            assert token.token_id == expected


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(rows(), min_size=2, max_size=6), st.integers(0, 2**32))
def test_a_row_does_not_feel_its_neighbours(draw: Drawer, batch: list[Row], seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (len(batch), VOCAB)))
    logits = logits.float()
    alone = [run([row], logits[i : i + 1], draw)[0] for i, row in enumerate(batch)]
    assert run(batch, logits, draw) == alone


def test_parameters_are_left_as_they_were(draw: Drawer) -> None:
    params = SamplingParams(logit_bias={3: 1.0}, allowed_token_ids=[3, 4], stop_token_ids=[5])
    before = repr(params)
    run([Row(params, [1], [2])], torch.randn(1, VOCAB), draw)
    assert repr(params) == before


def test_equal_logits_go_to_the_lowest_token(draw: Drawer) -> None:
    greedy = SamplingParams(temperature=0.0)
    assert run([Row(greedy, [1], [])], torch.zeros(1, VOCAB), draw)[0].token_id == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_ends_alone(draw: Drawer, bad: float) -> None:
    greedy, drawn = SamplingParams(temperature=0.0), SamplingParams(seed=3)
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    batch = [Row(greedy, [1], []), Row(drawn, [1], []), Row(drawn, [1], [4], seed=9)]
    expected = run(batch, logits, draw)
    logits[1, 5] = bad
    answers = run(batch, logits, draw)
    assert answers[1] == SampledToken(error=NOT_FINITE)
    assert [answers[0], answers[2]] == [expected[0], expected[2]]


WIDE = [  # spread of the logits, min_p, top_k, top_p
    (0.1, 0.0, 0, 0.9),
    (4.0, 0.0, 0, 0.9),
    (0.1, 0.0, 700, 0.5),
    (3.0, 0.0, 300, 0.99),
    (0.1, 0.0, 1500, 1.0),
    (1.0, 0.02, 0, 1.0),
    (1.0, 0.001, 0, 0.7),
    (2.0, 0.01, 90, 0.8),
]


@pytest.mark.parametrize(("spread", "min_p", "top_k", "top_p"), WIDE)
def test_a_wide_vocabulary_is_filtered_as_exactly_as_a_small_one(
    draw: Drawer, spread: float, min_p: float, top_k: int, top_p: float
) -> None:
    """A row looks at a part of the vocabulary first; a flat distribution needs more of it."""
    vocab = 2000
    logits = spread * torch.randn(1, vocab, generator=torch.Generator().manual_seed(0))
    params = SamplingParams(min_p=min_p, top_k=top_k, top_p=top_p, temperature=1.0)
    values, ids = logits[0].double().sort(descending=True)
    values[values < values[0] + math.log(min_p or 1e-300)] = -math.inf
    values[top_k or vocab :] = -math.inf
    probs = values.softmax(-1)
    is_kept = (probs.cumsum(-1) - probs < top_p) & (probs > 0)
    noise = GumbelNoise()
    for seed in range(40):
        scores = noise([seed], [1], vocab)[0][ids] + values
        scores[~is_kept] = -math.inf
        answer = run([Row(params, [1], [], seed)], logits, draw)[0]
        assert answer.token_id == int(ids[scores.argmax()])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(draw: Drawer, temperature: float) -> None:
    """Chi-square over 4000 positions of one seed; the bound is its 99.9th percentile, 23 df."""
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(7))
    params = SamplingParams(temperature=temperature, seed=5)
    probs = (logits[0].double() / temperature).softmax(0)
    num_draws, counts = 4000, torch.zeros(VOCAB, dtype=torch.float64)
    batch = [Row(params, [1] * (1 + i), [], seed=5) for i in range(num_draws)]
    for answer in run(batch, logits.expand(num_draws, VOCAB), draw):
        assert answer.token_id is not None
        counts[answer.token_id] += 1
    expected = probs * num_draws
    assert ((counts - expected) ** 2 / expected).sum() < 49.7


def test_noise_depends_on_seed_and_position_only() -> None:
    noise = GumbelNoise()
    together = noise([1, 2, 1, -1], [5, 5, 6, 5], 1000)
    for row, (seed, position) in enumerate([(1, 5), (2, 5), (1, 6), (-1, 5)]):
        assert torch.equal(GumbelNoise()([seed], [position], 1000)[0], together[row])
    assert len({tuple(row.tolist()) for row in together}) == 4
    assert torch.equal(noise([1], [5], 999)[0], together[0, :999])


def test_noise_is_gumbels() -> None:
    values = GumbelNoise()([3], [1], 200_000)[0].double()
    assert abs(values.mean() - 0.5772) < 0.01
    assert abs(values.var() - math.pi**2 / 6) < 0.03


def test_noise_has_not_changed() -> None:
    """A seed given today must repeat tomorrow: changing the noise breaks stored expectations."""
    found = GumbelNoise()([1234], [17], 4)[0]
    torch.testing.assert_close(found, torch.tensor([-1.204419, -0.147316, 3.698897, 0.456178]))


def logprobs_of(answer: SampledToken) -> tuple[list[int], list[float], list[int]]:
    assert answer.logprobs is not None
    return answer.logprobs.token_ids, answer.logprobs.logprobs, answer.logprobs.ranks


def test_logprobs_are_raw_and_the_chosen_token_comes_first(draw: Drawer) -> None:
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(2))
    reference = logits.double().log_softmax(-1)
    banned = int(logits[0].argmax())
    batch = [
        Row(SamplingParams(temperature=0.0, logit_bias={banned: -100.0}, logprobs=3), [1], []),
        Row(SamplingParams(temperature=1.5, seed=4, logprobs=0), [1], []),
        Row(SamplingParams(temperature=0.0, logprobs=-1), [1], []),
    ]
    answers = run(batch, logits, draw)
    for row, (answer, num_top) in enumerate(zip(answers, (3, 0, VOCAB), strict=True)):
        ids, logprobs, ranks = logprobs_of(answer)
        assert len(ids) == len(logprobs) == len(ranks) == num_top + 1
        assert ids[0] == answer.token_id
        assert ids[1:] == reference[row].argsort(descending=True)[:num_top].tolist()
        assert logprobs == pytest.approx(reference[row, ids].tolist(), abs=1e-5)
        assert ranks[0] == 1 + int((reference[row] > reference[row, ids[0]]).sum())
        assert ranks[1:] == list(range(1, num_top + 1))
    assert logprobs_of(answers[0])[2][0] == 2


def test_rows_without_logprobs_have_none(draw: Drawer) -> None:
    answers = run(
        [
            Row(SamplingParams(temperature=0.0), [1], []),
            Row(SamplingParams(temperature=0.0, logprobs=1), [1], []),
        ],
        torch.randn(2, VOCAB),
        draw,
    )
    assert answers[0].logprobs is None
    assert answers[1].logprobs is not None
