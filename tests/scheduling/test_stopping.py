import pytest

from tests.scheduling.checked_model import make_sequence
from wheelpit.request import SamplingParams
from wheelpit.scheduling.stopping import find_stop


def stop_of(output, *, max_num_tokens=100, max_tokens=10, eos=(), primary=None, **params):
    sequence = make_sequence(
        "stops",
        [1, 2, 3],
        SamplingParams(max_tokens=max_tokens, **params),
        max_tokens=max_tokens,
        eos_token_ids=frozenset(eos),
        primary_eos_token_id=primary,
    )
    sequence.token_ids += output
    return find_stop(sequence, max_num_tokens)


def test_an_ordinary_token_goes_on():
    assert stop_of([4], eos=[9], primary=9, stop_token_ids=[8]) is None


def test_the_primary_eos_stops_without_a_reason():
    assert stop_of([4, 9], eos=[9, 7], primary=9) == ("stop", None)


def test_another_eos_stops_with_its_id():
    assert stop_of([4, 7], eos=[9, 7], primary=9) == ("stop", 7)


def test_a_stop_token_stops_with_its_id():
    assert stop_of([8], eos=[9], primary=9, stop_token_ids=[5, 8]) == ("stop", 8)


def test_eos_is_looked_at_before_stop_tokens():
    assert stop_of([9], eos=[9], primary=9, stop_token_ids=[9]) == ("stop", None)


def test_under_ignore_eos_an_explicit_stop_token_still_stops():
    assert stop_of([9], primary=9, stop_token_ids=[9]) == ("stop", 9)


@pytest.mark.parametrize("kind", ["eos", "stop_token_ids"])
def test_nothing_but_the_length_stops_before_min_tokens(kind):
    assert stop_of([9], min_tokens=2, primary=9, **{kind: [9]}) is None
    assert stop_of([9, 9], min_tokens=2, primary=9, **{kind: [9]}) is not None
    assert stop_of([9], min_tokens=2, max_num_tokens=4, **{kind: [9]}) == ("length", None)


def test_max_tokens_ends_with_length():
    assert stop_of([4, 4], max_tokens=3) is None
    assert stop_of([4, 4, 4], max_tokens=3) == ("length", None)


def test_a_stop_in_the_last_token_is_a_stop():
    assert stop_of([4, 4, 9], max_tokens=3, eos=[9], primary=9) == ("stop", None)


def test_the_end_of_the_context_ends_with_length():
    assert stop_of([4, 4], max_num_tokens=5) == ("length", None)
