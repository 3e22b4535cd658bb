from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plato.prompting.quoting import cut_middle, fair_share


def test_short_texts_stay_whole_and_long_ones_share_the_rest() -> None:
    assert fair_share([10, 90, 80], 100) == 45
    assert fair_share([10, 20], 100) == 20
    assert fair_share([10, 20], 0) == 0
    assert fair_share([10, 20], -5) == 0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.integers(0, 1000))
def test_shares_fit_and_leave_nothing_that_could_be_used(lengths: list[int], room: int) -> None:
    share = fair_share(lengths, room)
    assert sum(min(length, share) for length in lengths) <= room
    if share < max(lengths):
        assert sum(min(length, share + 1) for length in lengths) > room


def test_the_middle_is_cut_and_marked() -> None:
    tokens = list(range(100))
    assert cut_middle(tokens, (-1, -2), 100) == tuple(tokens)
    assert cut_middle(tokens, (-1, -2), 23) == (*range(11), -1, -2, *range(90, 100))


def test_a_text_of_which_too_little_would_be_left_is_left_out() -> None:
    assert cut_middle(range(100), (-1,), 16) == ()
    assert len(cut_middle(range(100), (-1,), 17)) == 17
