"""The composer: one text, whatever the order and the cutting of what arrives."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plato.composing import Composer

from plato.engine import FinishReason
from plato.errors import NodeFailedError
from plato.runs import (
    Mode,
    ModeChosen,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunFinished,
    RunReport,
)

RUN = "r"
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


def decode(ids: tuple[int, ...]) -> str:
    """A byte-level tokenizer: token ids are UTF-8 bytes."""
    return bytes(ids).decode("utf-8", errors="replace")


def encode(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def chosen(mode: Mode = Mode.PLATO) -> ModeChosen:
    return ModeChosen(RUN, 0.0, mode)


def planned(number: int, title: str = "") -> NodePlanned:
    return NodePlanned(RUN, 0.0, Node(number, title or f"Part {number}"))


def plan_finished() -> PlanFinished:
    return PlanFinished(RUN, 0.0, PlanReport("model"))


def output(number: int, text: str, offset: int = 0, *, attempt: int = 0) -> NodeOutput:
    return NodeOutput(RUN, 1.5, number, attempt, offset, encode(text), text)


def finished(number: int, finish: FinishReason = STOP) -> NodeFinished:
    report = NodeReport(number, "", (), NodeState.DONE, finish=finish)
    return NodeFinished(RUN, 2.0, number, finish, report)


def run_finished() -> RunFinished:
    report = RunReport(RUN, Mode.PLATO, Mode.PLATO, None, PlanReport("model"), (), 0, 0, 0, 0.0)
    return RunFinished(RUN, 3.0, report)


def feed(composer: Composer, *events: RunEvent) -> list[str]:
    return [composer.feed(event) for event in events]


def started(count: int, **options: object) -> Composer:
    """A composer that knows a complete plan of `count` nodes."""
    composer = Composer(decode, **options)  # type: ignore[arg-type]
    feed(composer, *(planned(number) for number in range(1, count + 1)))
    feed(composer, plan_finished(), chosen())
    return composer


def test_the_current_node_streams_and_later_ones_wait_for_their_turn() -> None:
    composer = started(3)
    assert composer.feed(output(2, "two")) == ""
    assert composer.feed(output(1, "one ")) == "one"
    assert composer.feed(output(1, "more", 4)) == " more"
    assert composer.feed(finished(1)) == "\n\ntwo"
    assert composer.feed(output(2, "!", 3)) == "!"
    assert feed(composer, output(3, "three"), finished(3)) == ["", ""]
    assert not composer.done
    assert composer.feed(finished(2)) == "\n\nthree"
    assert composer.done
    assert composer.finish_reason == "stop"
    assert composer.text == "one more\n\ntwo!\n\nthree"


def test_nothing_is_shown_before_the_mode_is_known() -> None:
    composer = Composer(decode)
    assert feed(composer, planned(1), output(1, "one"), finished(1)) == ["", "", ""]
    assert composer.first_text_s is None
    assert composer.feed(chosen()) == "one"
    assert composer.first_text_s == 0.0


def test_a_fallback_to_sequential_forgets_what_the_plan_had_begun() -> None:
    composer = Composer(decode, headings=True)
    feed(composer, planned(1), output(1, "abandoned"), plan_finished(), chosen(Mode.SEQUENTIAL))
    feed(composer, planned(1), output(1, " answer\n"), finished(1), run_finished())
    assert composer.text == "answer"
    assert composer.finish_reason == "stop"


def test_titles_become_headings_of_parts_that_have_text() -> None:
    composer = Composer(decode, headings=True)
    feed(composer, planned(1, "Sun"), planned(2, "Void"), planned(3, "Wind"), plan_finished())
    feed(composer, chosen(), output(1, "hot"), output(2, " \n"), output(3, "cold"))
    feed(composer, finished(1), finished(2), finished(3))
    assert composer.text == "## Sun\n\nhot\n\n## Wind\n\ncold"


def test_white_space_is_held_back_until_text_follows() -> None:
    composer = started(1)
    assert composer.feed(output(1, "\n a")) == "a"
    assert composer.feed(output(1, " \n", 3)) == ""
    assert composer.feed(output(1, "b ", 5)) == " \nb"
    assert composer.feed(finished(1)) == ""


def test_a_retried_attempt_is_not_shown_twice() -> None:
    composer = started(1)
    assert composer.feed(output(1, "abc")) == "abc"
    assert composer.feed(output(1, "ab", 0, attempt=1)) == ""
    assert composer.feed(output(1, "def", 3, attempt=1)) == "def"
    assert composer.text == "abcdef"


def test_missing_tokens_are_an_error() -> None:
    composer = started(1)
    composer.feed(output(1, "abc"))
    with pytest.raises(NodeFailedError, match="tokens 3 to 5 of part 1 are missing"):
        composer.feed(output(1, "f", 5))


def test_a_run_that_ends_without_a_part_is_an_error() -> None:
    composer = started(2)
    feed(composer, output(1, "one"), finished(1))
    with pytest.raises(NodeFailedError, match="part 2"):
        composer.feed(run_finished())


def test_max_tokens_cuts_inside_a_chunk_and_ends_the_answer() -> None:
    composer = started(3, max_tokens=5)
    assert composer.feed(output(1, "one")) == "one"
    assert composer.feed(output(2, "twotwo")) == ""
    assert composer.feed(finished(1)) == "\n\ntw"
    assert composer.done
    assert composer.finish_reason == "length"
    assert feed(composer, output(2, "!", 6), finished(2), output(3, "x")) == ["", "", ""]


def test_max_tokens_reached_at_the_end_of_the_last_node_cuts_nothing() -> None:
    composer = started(1, max_tokens=3)
    assert feed(composer, output(1, "one"), finished(1)) == ["one", ""]
    assert composer.finish_reason == "stop"


def test_max_tokens_reached_between_nodes_ends_the_answer_without_waiting() -> None:
    composer = started(2, max_tokens=3)
    feed(composer, output(1, "one"), finished(1))
    assert composer.done
    assert composer.finish_reason == "length"


def test_max_tokens_never_shows_half_a_character() -> None:
    composer = started(1, max_tokens=2)
    composer.feed(output(1, "aé"))
    assert composer.text == "a"
    assert composer.finish_reason == "length"


def test_what_was_shown_stays_when_the_tokenizer_disagrees() -> None:
    composer = Composer(lambda ids: "something else", max_tokens=4)
    feed(composer, planned(1), chosen(), output(1, "abc"), output(1, "defg", 3))
    assert composer.text == "abc"
    assert composer.finish_reason == "length"


def test_a_node_that_used_up_its_own_budget_makes_the_answer_cut() -> None:
    composer = started(2)
    feed(composer, output(1, "one"), finished(1, LENGTH), output(2, "two"), finished(2))
    assert composer.finish_reason == "length"


def test_a_stop_string_ends_the_answer_before_it_across_chunks() -> None:
    composer = started(2, stop=["END"])
    assert composer.feed(output(1, "text E")) == "text "
    assert composer.feed(output(1, "N", 6)) == ""
    assert composer.feed(output(1, "D more", 7)) == ""
    assert composer.done
    assert composer.finish_reason == "stop"
    assert composer.text == "text "


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    composer = started(1, stop=["END"])
    assert feed(composer, output(1, "EN"), output(1, "TER EN", 2)) == ["", "ENTER "]
    assert composer.feed(finished(1)) == "EN"


def test_a_stop_string_that_repeats_itself_is_found_across_chunks() -> None:
    composer = started(1, stop=["aab"])
    assert feed(composer, output(1, "aaa"), output(1, "b", 3)) == ["a", ""]
    assert composer.done


def test_a_stop_string_in_a_later_part_waits_for_the_parts_before_it() -> None:
    composer = started(2, stop=["END"])
    feed(composer, output(2, "two END"), finished(2), output(1, "one"))
    assert not composer.done
    assert composer.feed(finished(1)) == "\n\ntwo "
    assert composer.done


def test_a_blank_line_as_stop_string_ends_the_answer_after_the_first_part() -> None:
    composer = started(2, stop=["\n\n"])
    feed(composer, output(1, "one"), finished(1), output(2, "two"))
    assert composer.text == "one"
    assert composer.finish_reason == "stop"


# What the streamed answer is compared with: the rules applied to the whole texts at once.

Parts = list[tuple[str, FinishReason]]


def compose(
    parts: Parts, *, headings: bool, max_tokens: int | None, stop: list[str]
) -> tuple[str, str]:
    answer, cuts, left = "", [], max_tokens
    for number, (text, finish) in enumerate(parts, start=1):
        over = left is not None and (left == 0 or len(encode(text)) > left)
        if over:
            text = encode_cut(text, left or 0)
        if text.strip():
            answer += "\n\n" if answer else ""
            answer += f"## Part {number}\n\n" if headings else ""
            answer += text.strip()
        if over or finish is not STOP:
            cuts.append(len(answer))
        if over:
            break
        if left is not None:
            left -= len(encode(text))
    for end in range(1, len(answer) + 1):
        matching = [string for string in stop if answer[:end].endswith(string)]
        if matching:
            # A part that was cut before the match began to be looked for is visibly cut.
            was_cut = any(at < end for at in cuts)
            return answer[: end - max(map(len, matching))], "length" if was_cut else "stop"
    return answer, "length" if cuts else "stop"


def encode_cut(text: str, tokens: int) -> str:
    return text.encode()[:tokens].decode(errors="ignore")


texts = st.text(alphabet="ab é\n#", max_size=12)
parts_strategy = st.lists(
    st.tuples(texts, st.sampled_from([STOP, STOP, LENGTH])), min_size=1, max_size=4
)
stops = st.lists(st.text(alphabet="ab \n#", min_size=1, max_size=4), max_size=3)


def chunked(number: int, text: str, rng: random.Random) -> list[RunEvent]:
    """The output of a node in random chunks, its text trailing its tokens as an engine's may."""
    ids = encode(text)
    cuts = sorted({0, len(ids), *(rng.randint(0, len(ids)) for _ in range(rng.randint(0, 4)))})
    events: list[RunEvent] = []
    sent = ""
    for start, end in pairwise(cuts):
        complete = text if end == len(ids) else encode_cut(text, end)
        if end < len(ids):
            complete = complete[: max(len(sent), len(complete) - rng.randint(0, 2))]
        piece, sent = complete[len(sent) :], complete
        events.append(NodeOutput(RUN, 1.0, number, 0, start, ids[start:end], piece))
        if rng.random() < 0.2:
            repeated = rng.randint(0, start)
            if repeated < end:
                events.append(
                    NodeOutput(RUN, 1.0, number, 1, repeated, ids[repeated:end], "repeated")
                )
    return events


def interleaved(parts: Parts, rng: random.Random) -> list[RunEvent]:
    """All events of a run in a random order that the contract allows."""
    lanes: list[list[RunEvent]] = []
    for number, (text, finish) in enumerate(parts, start=1):
        report = NodeReport(number, "", (), NodeState.RUNNING)
        start = NodeStarted(RUN, 0.5, number, 0, report)
        lanes.append([start, *chunked(number, text, rng), finished(number, finish)])
    plan: list[RunEvent] = [planned(number) for number in range(1, len(parts) + 1)]
    plan.insert(rng.randint(0, len(plan)), chosen())
    plan.append(plan_finished())
    known, events = 0, []
    while plan or any(lanes):
        ready = [lane for lane in lanes[:known] if lane]
        if plan and (not ready or rng.random() < 0.5):
            event = plan.pop(0)
            known += isinstance(event, NodePlanned)
        else:
            event = rng.choice(ready).pop(0)
        events.append(event)
    return [*events, run_finished()]


@settings(max_examples=400, deadline=None)
@given(
    parts=parts_strategy,
    headings=st.booleans(),
    max_tokens=st.none() | st.integers(1, 30),
    stop=stops,
    rng=st.randoms(use_true_random=False),
)
def test_any_interleaving_and_chunking_gives_the_composition_of_the_full_texts(
    parts: Parts, headings: bool, max_tokens: int | None, stop: list[str], rng: random.Random
) -> None:
    composer = Composer(decode, headings=headings, max_tokens=max_tokens, stop=stop)
    released = "".join(feed(composer, *interleaved(parts, rng)))
    expected = compose(parts, headings=headings, max_tokens=max_tokens, stop=stop)
    assert (released, composer.finish_reason) == expected
    assert composer.text == released
    assert composer.done
