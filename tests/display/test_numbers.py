"""Numbers in sentences."""

from __future__ import annotations

import pytest

from plato.display.numbers import counted, listed


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((3,), "3"),
        ((1, 2), "1, 2"),
        ((1, 2, 3), "1-3"),
        ((1, 3, 4, 5, 6, 9, 10), "1, 3-6, 9, 10"),
    ],
)
def test_three_in_a_row_become_a_range(numbers: tuple[int, ...], text: str) -> None:
    assert listed(numbers) == text


def test_one_is_singular() -> None:
    assert [counted(number, "token") for number in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]
