"""Stop strings, against a naive search of the whole text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wheelpit.text.stop import StopChecker


def naive(chunks, stops, include):
    """Return (visible text, match) of a stream: re-search everything with each chunk."""
    text = ""
    for chunk, is_checked in chunks:
        num_old = len(text)
        text += chunk
        if not is_checked:
            continue
        for stop in stops:
            ends = [
                start + len(stop)
                for start in range(len(text))
                if text.startswith(stop, start) and start + len(stop) > num_old
            ]
            if ends:
                return text[: ends[0] if include else ends[0] - len(stop)], stop
    return text, None


texts = st.text(alphabet="ab", max_size=4)


@given(
    chunks=st.lists(st.tuples(texts, st.booleans()), max_size=12),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=3),
    include=st.booleans(),
)
@settings(max_examples=1000, deadline=None)
def test_the_stream_agrees_with_a_naive_search(chunks, stops, include):
    checker = StopChecker(stops, include)
    expected, expected_match = naive(chunks, stops, include)
    hold = max(map(len, stops), default=1) - 1
    seen, whole, matched = "", "", None
    for index, (chunk, is_checked) in enumerate(chunks):
        is_final = index == len(chunks) - 1
        whole += chunk
        visible, matched = checker.append(chunk, is_final, is_checked=is_checked)
        seen += visible
        assert expected.startswith(seen)
        if matched is not None:
            break
        if not is_final and not include:
            assert len(whole) - len(seen) == min(hold, len(whole))
    assert (seen, matched) == (expected, expected_match)
    assert len(checker._tail) <= max(hold, 0)


def run(chunks, stops, include=False):
    checker = StopChecker(stops, include)
    return [checker.append(chunk, chunk is chunks[-1]) for chunk in chunks]


def test_a_match_spans_pieces_and_leaves_nothing_of_itself():
    assert run(["Hi US", "ER: no"], ["USER:"]) == [("H", None), ("i ", "USER:")]


def test_include_stop_cuts_behind_the_match_and_holds_nothing_back():
    assert run(["Hi US", "ER: no"], ["USER:"], True) == [("Hi US", None), ("ER:", "USER:")]


def test_list_order_wins_over_place_in_the_text():
    assert run(["one b two a"], ["a", "b"]) == [("one b two ", "a")]


def test_held_back_text_is_released_at_the_end():
    assert run(["abc", "d", ""], ["xyz!"]) == [("", None), ("a", None), ("bcd", None)]


def test_text_below_min_tokens_does_not_stop_but_a_match_may_begin_in_it():
    checker = StopChecker(["END"])
    assert checker.append("END EN", is_checked=False) == ("END ", None)
    assert checker.append("D", False) == ("", "END")


def test_after_a_match_everything_is_dropped():
    checker = StopChecker(["."])
    assert checker.append("a.b") == ("a", ".")
    assert checker.append("c", True) == ("", ".")


def test_without_stop_strings_text_passes():
    assert run(["a", "b"], []) == [("a", None), ("b", None)]


@pytest.mark.parametrize("num_chars", [10_000])
def test_the_buffer_stays_small_over_a_long_stream(num_chars):
    checker = StopChecker(["needle", "another needle"])
    seen = sum(len(checker.append("x")[0]) for _ in range(num_chars))
    assert seen == num_chars - len("another needle") + 1
    assert len(checker._tail) == len("another needle") - 1
