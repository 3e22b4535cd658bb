"""The composer: one text, whatever the order and the cutting of what arrives."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings

from plato.runs import Mode, RunEvent, RunFinished, RunRequest, RunState
from plato.runs.composer import Composer
from tests.runs.examples import (
    LENGTH,
    STOP,
    Parts,
    chances,
    chosen,
    cut,
    decode,
    encode,
    finished,
    missing_events,
    output,
    parts_strategy,
    plan_finished,
    planned,
    request,
    requests,
    run_events,
    started,
)


class Composed:
    """A state and its composer."""

    def __init__(self, **fields: Any) -> None:
        self.state = RunState(request(**fields))
        self.composer = Composer(self.state, decode)
        self.text = ""

    def feed(self, *events: RunEvent) -> list[str]:
        """What each event releases."""
        released = []
        for event in events:
            self.state.feed(event)
            released.append(self.composer.advance())
        self.text += "".join(released)
        return released

    @property
    def finish_reason(self) -> str | None:
        return self.composer.finish_reason


def planned_answer(count: int, **fields: Any) -> Composed:
    """An answer by a complete plan of `count` nodes."""
    answer = Composed(**fields)
    answer.feed(*(planned(number) for number in range(1, count + 1)), plan_finished(), chosen())
    return answer


def test_the_current_node_streams_and_later_ones_wait_for_their_turn() -> None:
    answer = planned_answer(3)
    assert answer.feed(output(2, "two"), output(1, "one "), output(1, "more", 4)) == [
        "",
        "one",
        " more",
    ]
    assert answer.composer.current == 1
    assert answer.feed(finished(1, "one more"), output(2, "!", 3)) == ["\n\ntwo", "!"]
    assert answer.feed(output(3, "three"), finished(3, "three")) == ["", ""]
    assert answer.composer.current == 2
    assert not answer.composer.done
    assert answer.feed(finished(2, "two!")) == ["\n\nthree"]
    assert answer.composer.done
    assert answer.finish_reason == "stop"
    assert answer.text == "one more\n\ntwo!\n\nthree"


def test_nothing_is_shown_before_the_mode_is_known() -> None:
    answer = Composed()
    assert answer.feed(planned(1), output(1, "one"), finished(1, "one")) == ["", "", ""]
    assert answer.feed(chosen()) == ["one"]


def test_a_node_ends_with_its_last_output() -> None:
    answer = planned_answer(2)
    assert answer.feed(output(2, "two"), output(1, "one", finish=STOP)) == ["", "one\n\ntwo"]


def test_a_fallback_to_sequential_forgets_what_the_plan_had_begun() -> None:
    answer = Composed(headings=True)
    answer.feed(planned(1), output(1, "abandoned"), planned(2), chosen(Mode.SEQUENTIAL))
    answer.feed(planned(1), plan_finished(), output(1, " answer\n"), finished(1, " answer\n"))
    assert answer.text == "answer"
    assert answer.finish_reason == "stop"


def test_titles_become_headings_of_parts_that_have_text() -> None:
    answer = Composed(headings=True)
    answer.feed(planned(1, "Sun"), planned(2, "Void"), planned(3, "Wind"), plan_finished())
    answer.feed(chosen(), output(1, "hot"), output(2, " \n"), output(3, "cold"))
    answer.feed(finished(1, "hot"), finished(2, " \n"), finished(3, "cold"))
    assert answer.text == "## Sun\n\nhot\n\n## Wind\n\ncold"


def test_white_space_is_held_back_until_text_follows() -> None:
    answer = planned_answer(1)
    events = output(1, "\n a"), output(1, " \n", 3), output(1, "b ", 5), finished(1, "\n a \nb ")
    assert answer.feed(*events) == ["a", "", " \nb", ""]


def test_what_continues_a_text_keeps_its_white_space() -> None:
    answer = Composed(raw=True)
    answer.feed(chosen(Mode.SEQUENTIAL), planned(1), plan_finished())
    events = output(1, "\n"), output(1, "  a", 1), output(1, " ", 4), finished(1, "\n  a ")
    assert answer.feed(*events) == ["\n", "  a", " ", ""]


def test_white_space_that_continues_a_text_counts_for_stop_strings_and_limits() -> None:
    stopped = Composed(raw=True, stop=("\n",))
    stopped.feed(chosen(Mode.SEQUENTIAL), planned(1), plan_finished(), output(1, "\na"))
    assert (stopped.text, stopped.finish_reason) == ("", "stop")
    limited = Composed(raw=True, max_tokens=2)
    limited.feed(chosen(Mode.SEQUENTIAL), planned(1), plan_finished(), output(1, " \na"))
    assert (limited.text, limited.finish_reason) == (" \n", "length")


def test_a_retried_attempt_is_not_shown_twice() -> None:
    answer = planned_answer(1)
    assert answer.feed(
        output(1, "abc"), output(1, "ab", attempt=1), output(1, "def", 3, attempt=1)
    ) == ["abc", "", "def"]


def test_text_behind_missing_tokens_is_not_shown() -> None:
    answer = planned_answer(1)
    assert answer.feed(output(1, "abc"), output(1, "f", 5)) == ["abc", ""]
    assert answer.feed(output(1, "abcdef")) == ["def"]


def test_an_answer_with_a_part_that_has_not_come_is_not_complete() -> None:
    answer = planned_answer(2)
    answer.feed(output(1, "one"), finished(1, "one"))
    assert not answer.composer.done
    assert answer.finish_reason is None
    assert answer.composer.current == 2


def test_max_tokens_cuts_inside_a_chunk_and_ends_the_answer() -> None:
    answer = planned_answer(3, max_tokens=5)
    assert answer.feed(output(1, "one"), output(2, "twotwo"), finished(1, "one")) == [
        "one",
        "",
        "\n\ntw",
    ]
    assert answer.composer.done
    assert answer.finish_reason == "length"
    assert answer.composer.tokens == 5
    assert [answer.composer.node_tokens(number) for number in (1, 2, 3)] == [3, 2, 0]
    assert [answer.composer.cut(number) for number in (1, 2, 3)] == [
        None,
        "max_tokens",
        "max_tokens",
    ]
    assert answer.feed(output(2, "!", 6), finished(2, "twotwo!"), output(3, "x")) == ["", "", ""]


def test_max_tokens_reached_at_the_end_of_the_last_node_cuts_nothing() -> None:
    answer = planned_answer(1, max_tokens=3)
    assert answer.feed(output(1, "one"), finished(1, "one")) == ["one", ""]
    assert answer.finish_reason == "stop"


def test_max_tokens_reached_between_nodes_ends_the_answer_without_waiting() -> None:
    answer = planned_answer(2, max_tokens=3)
    answer.feed(output(1, "one"), finished(1, "one"))
    assert answer.composer.done
    assert answer.finish_reason == "length"


def test_max_tokens_never_shows_half_a_character() -> None:
    answer = planned_answer(1, max_tokens=2)
    answer.feed(output(1, "aé"))
    assert answer.text == "a"
    assert answer.finish_reason == "length"


def test_what_was_shown_stays_when_the_tokenizer_disagrees() -> None:
    answer = Composed(max_tokens=4)
    answer.composer = Composer(answer.state, lambda ids: "something else")
    answer.feed(planned(1), chosen(), output(1, "abc"), output(1, "defg", 3))
    assert answer.text == "abc"
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(("by_caller", "reason"), [(True, "length"), (False, "stop")])
def test_a_part_that_used_up_its_budget_cuts_the_answer_if_the_caller_has_set_it(
    by_caller: bool, reason: str
) -> None:
    answer = planned_answer(2)
    answer.feed(started(1, bounded_by_caller=by_caller), output(1, "one", finish=LENGTH))
    answer.feed(output(2, "two"), finished(2, "two"))
    assert answer.finish_reason == reason
    assert [answer.composer.cut(number) for number in (1, 2)] == ["budget", None]


def test_a_sequential_answer_that_used_up_its_budget_is_cut() -> None:
    answer = Composed()
    answer.feed(chosen(Mode.SEQUENTIAL), planned(1), plan_finished())
    answer.feed(output(1, "one", finish=LENGTH))
    assert answer.finish_reason == "length"


def test_a_code_block_that_a_cut_leaves_open_is_closed_before_the_next_part() -> None:
    answer = planned_answer(2)
    answer.feed(output(1, "See:\n```\na = 1\n"), finished(1, "See:\n```\na = 1\n", LENGTH))
    answer.feed(output(2, "Two."), finished(2, "Two."))
    assert answer.text == "See:\n```\na = 1\n```\n\nTwo."


def test_a_code_block_is_closed_where_max_tokens_cuts_it() -> None:
    answer = planned_answer(2, max_tokens=6)
    answer.feed(output(1, "```\nlong"))
    assert answer.text == "```\nlo\n```"


def test_what_the_model_ended_itself_or_wrote_in_one_piece_stays_as_it_is() -> None:
    answer = planned_answer(2)
    answer.feed(output(1, "```\na"), finished(1, "```\na"), output(2, "b"), finished(2, "b"))
    assert answer.text == "```\na\n\nb"


def test_tokens_are_those_of_the_nodes_up_to_the_current_one() -> None:
    answer = planned_answer(3)
    answer.feed(output(1, "one"), output(3, "three"))
    assert answer.composer.tokens == 3
    answer.feed(finished(1, "one"), output(2, "two"))
    assert answer.composer.tokens == 6


def test_released_bytes_are_those_of_the_text() -> None:
    answer = planned_answer(2)
    answer.feed(output(1, "é"), finished(1, "é"), output(2, "東"))
    assert answer.composer.released_bytes == len("é\n\n東".encode())


def test_a_stop_string_ends_the_answer_before_it_across_chunks() -> None:
    answer = planned_answer(2, stop=("END",))
    assert answer.feed(output(1, "text E"), output(1, "N", 6), output(1, "D more", 7)) == [
        "text ",
        "",
        "",
    ]
    assert answer.composer.done
    assert answer.finish_reason == "stop"


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    answer = planned_answer(1, stop=("END",))
    assert answer.feed(output(1, "EN"), output(1, "TER EN", 2)) == ["", "ENTER "]
    assert answer.feed(finished(1, "ENTER EN")) == ["EN"]


def test_a_stop_string_in_a_later_part_waits_for_the_parts_before_it() -> None:
    answer = planned_answer(2, stop=("END",))
    answer.feed(output(2, "two END"), finished(2, "two END"), output(1, "one"))
    assert not answer.composer.done
    assert answer.feed(finished(1, "one")) == ["\n\ntwo "]
    assert answer.composer.done


def test_a_blank_line_as_stop_string_ends_the_answer_after_the_first_part() -> None:
    answer = planned_answer(2, stop=("\n\n",))
    answer.feed(output(1, "one"), finished(1, "one"), output(2, "two"))
    assert answer.text == "one"
    assert answer.finish_reason == "stop"
    assert answer.composer.cut(2) is None


def compose(parts: Parts, asked: RunRequest) -> tuple[str, str]:
    """The answer and its finish reason, by the rules applied to the whole texts at once."""
    answer, cuts, left = "", [], asked.max_tokens
    for number, (text, finish) in enumerate(parts, start=1):
        over = left is not None and (left == 0 or len(encode(text)) > left)
        if over:
            text = cut(text, left or 0)
        if text.strip():
            answer += "\n\n" if answer else ""
            answer += f"## Part {number}\n\n" if asked.headings else ""
            answer += text.strip()
        if over or (finish is not STOP and asked.max_tokens is not None):
            cuts.append(len(answer))
        if over:
            break
        if left is not None:
            left -= len(encode(text))
    for end in range(1, len(answer) + 1):
        matching = [string for string in asked.stop if answer[:end].endswith(string)]
        if matching:
            # A part that was cut before the match began to be looked for is visibly cut.
            was_cut = any(at < end for at in cuts)
            return answer[: end - max(map(len, matching))], "length" if was_cut else "stop"
    return answer, "length" if cuts else "stop"


@settings(max_examples=400, deadline=None)
@given(parts=parts_strategy, asked=requests, rng=chances)
def test_any_order_and_chunking_gives_the_composition_of_the_full_texts(
    parts: Parts, asked: RunRequest, rng: random.Random
) -> None:
    state = RunState(asked)
    composer = Composer(state, decode)
    released = ""
    for event in missing_events(state, parts, rng):
        state.feed(event)
        released += composer.advance()
    assert (released, composer.finish_reason) == compose(parts, asked)
    assert composer.released_bytes == len(released.encode())


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(parts=parts_strategy, asked=requests, rng=chances)
async def test_the_texts_that_a_schedulers_events_carry_are_the_same_answer(
    parts: Parts, asked: RunRequest, rng: random.Random
) -> None:
    events = await run_events(asked, parts, rng)
    offset = 0
    for event in events:
        if event.text:
            assert event.text_offset == offset
        offset += len(event.text.encode())
    follower = RunState(asked, events)
    assert isinstance(follower.ended, RunFinished)
    assert follower.text == Composer(follower, decode).advance() == compose(parts, asked)[0]
