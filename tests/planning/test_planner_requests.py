"""What the planner asks a decoder for."""

from __future__ import annotations

import pytest

from plato.engine import Lease
from plato.planning import wording
from plato.planning.grammar import TITLE_END, outline_grammar, outline_token_budget
from plato.planning.planner import GROUP_S
from plato.planning.titles import title_of_words
from plato.planning.vocabulary import structure_tokens
from plato.prompting import ChatTemplate, Tokenizer
from tests.planning.scripted import LINES, Script, ask, events_of, planner


async def test_the_request_is_greedy_under_the_grammar_and_carries_the_lease(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    lease = Lease("scheduler", 1.5)
    script = Script(tokenizer, *LINES)
    asked = ask(lease=lease, run_began_unix_s=7.0)
    await events_of(planner(script, tokenizer, template), asked)
    (request,) = script.requests

    assert (request.run_began_unix_s, request.group_s) == (7.0, GROUP_S)
    assert (request.node, request.lease, request.prompt.tenant) == (0, lease, "tenant")
    assert request.grammar == outline_grammar(6, title_of_words(13))
    assert request.max_tokens == outline_token_budget(6, 12)
    assert request.sampling.temperature == 0
    assert request.sampling.penalty_exempt == structure_tokens(tokenizer)


async def test_the_end_of_a_title_is_favoured_and_is_the_token_that_lines_have(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES)
    await events_of(planner(script, tokenizer, template), ask())
    ((token, bias),) = script.requests[0].sampling.logit_bias

    # With the default tokenizer the newline is a token of its own.
    assert bias > 0
    assert TITLE_END.startswith(tokenizer.decode((token,)))
    assert all(tokenizer.text(line).count(token) == 1 for line in LINES)


@pytest.mark.parametrize(("parts", "number"), [(2, "two"), (6, "six")])
async def test_the_outline_is_asked_for_with_its_number_of_parts_behind_the_question(
    tokenizer: Tokenizer, template: ChatTemplate, parts: int, number: str
) -> None:
    script = Script(tokenizer, *LINES[:2])
    await events_of(planner(script, tokenizer, template), ask(parts=parts))
    prompt = tokenizer.decode(script.requests[0].prompt.tokens)
    assert f"Solar or wind?{wording.points(parts)}" in prompt
    assert f"the {number} most important points" in prompt


async def test_the_question_is_tokenised_once_for_the_outline_and_all_decisions(
    tokenizer: Tokenizer, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised: list[str] = []
    real = Tokenizer.text

    def text(self: Tokenizer, text: str) -> tuple[int, ...]:
        tokenised.append(text)
        return real(self, text)

    script = Script(tokenizer, *LINES)
    planned = planner(script, tokenizer, template)
    monkeypatch.setattr(Tokenizer, "text", text)
    await events_of(planned, ask(decide=True))

    assert len(script.requests) + len(script.decisions) == 4
    assert sum("Solar or wind?" in text for text in tokenised) == 1
