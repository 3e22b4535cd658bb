"""Blinding, verdicts, and the swap."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.common.rows import InputError, read_rows, write_rows
from benchmarks.quality.pairs import Outcome, Pair, Verdict, blind, find_verdict, outcomes
from tests.benchmarks.quality.examples import answer, key, part

TEXT = "## Rain\n\nIt falls.\u2028\n\n- often\n"
OURS = {str(n): answer(str(n), "plato", part(f"{TEXT}ours {n}")) for n in range(40)}
THEIRS = {str(n): answer(str(n), "sequential", part(f"{TEXT}theirs {n}")) for n in range(1, 41)}


def test_both_orders_of_every_common_question_are_there_whole_and_nothing_else() -> None:
    pairs, keys = blind(OURS, THEIRS, seed=0)
    assert len(pairs) == 2 * 39
    for pair, of_pair in zip(pairs, keys, strict=True):
        assert asdict(pair).keys() == {"pair", "question", "answer_1", "answer_2"}
        ours, theirs = OURS[of_pair.id].text, THEIRS[of_pair.id].text
        expected = (ours, theirs) if of_pair.side == 1 else (theirs, ours)
        assert (pair.answer_1, pair.answer_2) == expected
        assert not any(mode in json.dumps(asdict(pair)) for mode in ("plato", "sequential"))
    assert Counter((one.id, one.side) for one in keys).total() == len(set(keys))


def test_neither_order_nor_number_of_a_pair_tells_the_side() -> None:
    _, keys = blind(OURS, THEIRS, seed=0)
    assert [one.pair for one in keys] == [str(n) for n in range(1, 79)]
    sides = [one.side for one in keys]
    assert Counter(sides) == {1: 39, 2: 39}
    assert 12 < Counter(sides[:39])[1] < 27
    assert [one.id for one in keys] != sorted((one.id for one in keys), key=int)
    first_sides = {one.id: one.side for one in reversed(keys)}
    assert 10 < Counter(first_sides.values())[1] < 29


def test_a_seed_gives_the_same_pairs_again() -> None:
    assert blind(OURS, THEIRS, seed=3) == blind(OURS, THEIRS, seed=3)
    assert blind(OURS, THEIRS, seed=3) != blind(OURS, THEIRS, seed=4)


def test_pairs_survive_their_file(tmp_path: Path) -> None:
    pairs, _ = blind(OURS, THEIRS, seed=0)
    write_rows(tmp_path / "pairs.jsonl", pairs)
    assert read_rows(tmp_path / "pairs.jsonl", Pair) == pairs


@pytest.mark.parametrize("form", ["1>>2", "1>2", "1=2", "2>1", "2>>1"])
def test_every_form_of_a_verdict_is_read(form: str, tmp_path: Path) -> None:
    assert find_verdict(f"Answer 1 breaks off.\n[[{form}]]") == form
    assert find_verdict(f"[[ {form[0]} {form[1:-1]} {form[-1]} ]], so [[{form}]]") == form
    file = tmp_path / "verdicts.jsonl"
    file.write_text(f'{{"pair": "1", "verdict": " [[{form}]]", "complaint": "long"}}\n\n')
    assert read_rows(file, Verdict) == [Verdict("1", form)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reply", ["", "1>2", "[[A>B]]", "[[1>1]]", "[[2=2]]", "[[1>2]] or [[2>1]]", "[[1>>>2]]"]
)
def test_what_is_no_single_verdict_is_none(reply: str) -> None:
    assert find_verdict(reply) is None


def test_equal_is_equal_in_either_order() -> None:
    assert find_verdict("[[2=1]]") == "1=2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"pair": "1", "verdict": "3>2"}', "line 1: verdict"),
        ('{"pair": "1"}', "line 1: verdict: Field required"),
        ('{"pair": "1", "verdict": ', "line 1: Invalid JSON"),
    ],
)
def test_an_invalid_verdict_is_refused_with_its_line(
    line: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "verdicts.jsonl"
    file.write_text(line)
    with pytest.raises(InputError, match=message):
        read_rows(file, Verdict)


@pytest.mark.parametrize(
    ("mode_first", "mode_second", "outcome"),
    [
        ("1>2", "2>1", Outcome.WIN),
        ("1>>2", "2>1", Outcome.WIN),
        ("2>1", "1>>2", Outcome.LOSS),
        ("1=2", "1=2", Outcome.TIE),
        ("1>2", "1>2", Outcome.INCONSISTENT),
        ("2>>1", "2>1", Outcome.INCONSISTENT),
        ("1>2", "1=2", Outcome.INCONSISTENT),
        (None, "2>1", Outcome.UNJUDGED),
    ],
)
def test_only_what_survives_the_swap_is_a_win(
    mode_first: str | None, mode_second: str, outcome: Outcome
) -> None:
    keys = [key("rain", 1), key("rain", 2)]
    verdicts = [Verdict("rain-1", mode_first), Verdict("rain-2", mode_second)]  # type: ignore[arg-type]
    assert outcomes(keys, verdicts) == {"rain": outcome}


def test_a_question_with_one_verdict_is_not_judged() -> None:
    keys = [key("rain", 2), key("rain", 1)]
    assert outcomes(keys, [Verdict("rain-1", "1>2")]) == {"rain": Outcome.UNJUDGED}
    assert outcomes(keys, []) == {"rain": Outcome.UNJUDGED}


def test_verdicts_on_other_pairs_and_second_ones_are_refused() -> None:
    keys = [key("rain", 1), key("rain", 2)]
    with pytest.raises(InputError, match="no pair snow-1"):
        outcomes(keys, [Verdict("snow-1", "1>2")])
    with pytest.raises(InputError, match="two verdicts on pair rain-1"):
        outcomes(keys, [Verdict("rain-1", "1>2"), Verdict("rain-1", "1>2")])
