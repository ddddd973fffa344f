"""Lengths, arrivals and prompts are pure functions of the seed."""

import json
from itertools import pairwise

import pytest

from wheelpit.bench.prompts import (
    WORDS,
    WordCost,
    ids_from_pool,
    text_by_tokenizer,
    text_by_words,
)
from wheelpit.bench.workload import (
    Endpoint,
    LengthRange,
    Workload,
    build_request,
    draw_arrivals,
    draw_lengths,
)
from wheelpit.errors import ConfigError


def test_lengths_repeat_with_the_seed_and_stay_in_their_ranges() -> None:
    workload = Workload(50, LengthRange(10, 20), LengthRange(1, 3), seed=7)
    lengths = draw_lengths(workload)
    assert lengths == draw_lengths(workload)
    assert lengths != draw_lengths(Workload(50, LengthRange(10, 20), LengthRange(1, 3), seed=8))
    assert {n for n, _ in lengths} == set(range(10, 21))
    assert {n for _, n in lengths} == {1, 2, 3}


def test_arrivals_repeat_with_the_seed_and_have_the_asked_rate() -> None:
    workload = Workload(num_prompts=4000, seed=3)
    arrivals_s = draw_arrivals(workload, request_rate=20.0)
    assert arrivals_s == draw_arrivals(workload, request_rate=20.0)
    assert arrivals_s[0] == 0.0
    assert all(before < after for before, after in pairwise(arrivals_s))
    assert arrivals_s[-1] == pytest.approx(4000 / 20, rel=0.1)


def test_id_prompts_are_exact_and_differ_from_their_first_token_on() -> None:
    write = ids_from_pool(range(100, 200), seed=0)
    prompts = [write(index, 128) for index in range(100)]
    assert all(len(prompt) == 128 for prompt in prompts)
    assert len({prompt[0] for prompt in prompts}) == 100
    assert prompts[5] == ids_from_pool(range(100, 200), seed=0)(5, 128)
    assert prompts[5] != ids_from_pool(range(100, 200), seed=1)(5, 128)


def test_text_by_tokenizer_is_exact_though_words_cost_different_numbers_of_tokens() -> None:
    def count_tokens(text: str) -> int:
        return sum(1 + len(word) // 5 for word in text.split())

    write = text_by_tokenizer(count_tokens, seed=0)
    for num_tokens in (1, 2, 17, 128):
        for index in range(20):
            assert count_tokens(str(write(index, num_tokens))) == num_tokens


def test_a_tokenizer_that_cannot_hit_the_length_is_an_error_not_an_endless_search() -> None:
    write = text_by_tokenizer(lambda text: 2 * len(text.split()), seed=0)
    with pytest.raises(ConfigError, match="exactly 3 tokens"):
        write(0, 3)


def test_text_by_words_uses_the_calibrated_cost() -> None:
    cost = WordCost.fit([(32, 5 + 64), (160, 5 + 320)])
    assert cost == WordCost(5.0, 2.0)
    assert len(str(text_by_words(cost, seed=0)(0, 105)).split()) == 50


def test_a_server_that_counts_every_text_alike_cannot_be_calibrated() -> None:
    with pytest.raises(ConfigError, match="--tokenizer"):
        WordCost.fit([(32, 9), (160, 9)])


def test_words_are_distinct() -> None:
    assert len(set(WORDS)) == len(WORDS) > 250


def test_a_request_carries_what_was_asked_and_null_removes_a_field() -> None:
    workload = Workload(extra_body={"stream_options": None, "top_k": 1})
    body = json.loads(build_request(workload, "m", 0, [1, 2], 9).body)
    assert body == {
        "model": "m",
        "prompt": [1, 2],
        "max_tokens": 9,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
        "top_k": 1,
    }
    chat = Workload(endpoint=Endpoint.CHAT, ignore_eos=False)
    request = build_request(chat, "m", 0, "hi", 9)
    assert request.path == "/v1/chat/completions"
    assert json.loads(request.body)["messages"] == [{"role": "user", "content": "hi"}]
    assert "ignore_eos" not in json.loads(request.body)


@pytest.mark.parametrize("text", ["5", "5:4", "0:4", "a:b", "1:2:3"])
def test_a_malformed_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="length range"):
        LengthRange.parse(text)


def test_a_range_is_read() -> None:
    assert LengthRange.parse("64:192") == LengthRange(64, 192)
