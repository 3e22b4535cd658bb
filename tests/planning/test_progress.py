"""An outline is read from chunks of any size, up to the line that ends it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato.engine import Chunk, FinishReason
from plato.planning.grammar import outline_line
from plato.planning.progress import PlanProgress
from plato.planning.protocol import PlanUsage
from plato.planning.readers import OutlineReader
from plato.planning.titles import refusal
from tests.planning.pieces import cut

TITLES = ("Solar power", "Größe und Gewicht", "東京", "Which to choose")
OUTLINE = "".join(outline_line(number, title) for number, title in enumerate(TITLES, start=1))


def refused(title: str, earlier: Sequence[str]) -> str | None:
    return refusal(title, earlier, 12)


def read(
    pieces: Sequence[str], finish: FinishReason | None = FinishReason.STOP
) -> tuple[tuple[str, ...], PlanProgress]:
    """The titles of an outline in these pieces, of one token each."""
    progress = PlanProgress((), OutlineReader(), refused)
    titles: list[str] = []
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        chunk = Chunk("run", 0, 0, place, (place,), piece, finish if last else None)
        titles += [draft.title for draft in progress.take(chunk, piece)]
    return tuple(titles), progress


def reason(progress: PlanProgress) -> str | None:
    assert progress.over
    return progress.summary().reason


def test_a_title_comes_with_the_end_of_its_line() -> None:
    titles, progress = read(["1. **Solar power**:"], None)
    assert titles == ()
    titles, progress = read(["1. **Sol", "ar power**:\n2. **Wind"], None)
    assert titles == ("Solar power",)
    assert not progress.over


@given(st.sets(st.integers(1, len(OUTLINE) - 1)))
def test_an_outline_is_read_whole_however_it_is_cut(places: set[int]) -> None:
    pieces = cut(OUTLINE, places)
    titles, progress = read(pieces)
    assert titles == TITLES
    assert reason(progress) is None
    assert progress.emitted == tuple(range(len(pieces)))


@given(
    st.integers(0, len(OUTLINE)),
    st.one_of(st.text("123. *:\naS"), st.text()),
    st.sets(st.integers(1, len(OUTLINE))),
)
def test_any_text_is_read_the_same_however_it_is_cut(
    place: int, inserted: str, places: set[int]
) -> None:
    text = OUTLINE[:place] + inserted + OUTLINE[place:]
    (titles, progress), (whole, alone) = read(cut(text, places)), read([text])
    assert titles == whole
    assert reason(progress) == reason(alone)
    assert progress.summary().refused == alone.summary().refused


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("", "''"),
        ("Solar power", "'Solar power'"),
        ("3. Choice", "'3. Choice'"),
        ("3. **Choice**", "'3. **Choice**'"),
        ("3. **Choice**: the better one", "'3. **Choice**: the better one'"),
        ("3 | Choice | -", "'3 | Choice | -'"),
        ("x" * 100, f"'{'x' * 60}'"),
    ],
)
def test_a_line_that_is_no_line_of_an_outline_ends_the_plan_with_its_reason(
    line: str, shown: str
) -> None:
    titles, progress = read(["1. **Sun**:\n2. **Wind**:\n", f"{line}\n3. **Rain**:\n"], None)
    assert titles == ("Sun", "Wind")
    assert reason(progress) == f"line 3 of the plan, {shown}, is no title"
    assert progress.summary().refused is None


@pytest.mark.parametrize(
    ("title", "why"),
    [("sun", "repeated"), ("Choose the", "no title"), ("1,2,3", "no title")],
)
def test_a_title_that_is_refused_ends_the_plan_with_its_reason(title: str, why: str) -> None:
    text = f"1. **Sun**:\n2. **Wind**:\n3. **{title}**:\n4. **Rain**:\n"
    titles, progress = read([text], None)
    assert titles == ("Sun", "Wind")
    assert reason(progress) == f"the plan ended before its line 3, {title!r} ({why})"
    assert progress.summary().refused == title


def test_a_list_that_the_model_ends_after_two_lines_is_a_plan_of_two() -> None:
    titles, progress = read(["1. **Sun**:\n", "2. **Wind**:\n", ""])
    assert titles == ("Sun", "Wind")
    assert reason(progress) is None


@pytest.mark.parametrize("rest", ["", "3. **Ch"])
def test_a_plan_that_uses_up_its_budget_says_so_and_keeps_its_lines(rest: str) -> None:
    titles, progress = read(["1. **Sun**:\n2. **Wind**:\n" + rest], FinishReason.LENGTH)
    assert titles == ("Sun", "Wind")
    assert reason(progress) == "the plan used up its token budget"


def test_a_line_that_ends_the_plan_is_its_reason_even_where_the_budget_ends_too() -> None:
    _, progress = read(["1. **Sun**:\nOops\n"], FinishReason.LENGTH)
    assert reason(progress) == "line 2 of the plan, 'Oops', is no title"


def test_what_follows_the_end_is_not_read() -> None:
    titles, progress = read(["1. **Sun**:\nOops\n", "2. **Wind**:\n"])
    assert titles == ("Sun",)
    assert progress.emitted == (0,)


def test_an_answer_that_is_not_split_ends_the_plan_without_a_reason() -> None:
    progress = PlanProgress((), OutlineReader(), refused)
    progress.decide(0.3, split=False)
    assert reason(progress) is None
    assert not progress.summary().split
    assert progress.usage().one_probability == 0.3


def test_usage_is_of_the_outline_and_its_decisions() -> None:
    progress = PlanProgress((7, 8), OutlineReader(), refused)
    for offset, steps in ((2, 1), (3, 2)):
        chunk = Chunk(
            "run", 0, 1, offset, (9,), "", prompt_tokens=30, cached_tokens=20, steps=steps
        )
        progress.take(chunk, "")
    for _ in range(2):
        progress.spend(Chunk("run", -2, 0, 0, (9,), "", prompt_tokens=50, cached_tokens=40))
    # The tokens of an earlier attempt count, too.
    assert progress.usage() == PlanUsage(
        tokens=4 + 2, steps=2 + 2, prompt_tokens=30 + 100, cached_tokens=20 + 80
    )
    assert progress.emitted == (7, 8, 9, 9)
