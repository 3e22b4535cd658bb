"""Which answers are kept as they are."""

from __future__ import annotations

from plato.prompting import ChatTemplate, Tokenizer
from plato.tuning.examples import Example, read_examples
from plato.tuning.reference import draw_prompts
from plato.tuning.samples import SampleBuilder


def test_requests_that_teach_nothing_else_come_first(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    builder = SampleBuilder(tokenizer, template, 2048)
    ordinary = [Example(f"What is {word}?", None) for word in ("tea", "ice", "ink")]
    examples = [*read_examples()[:20], *ordinary]
    first = {prompt for example in ordinary for prompt in builder.ordinary(example)}
    assert {*draw_prompts(builder, examples, 3, seed=0)} == first
    assert {*draw_prompts(builder, examples, 2, seed=0)} < first
    more = draw_prompts(builder, examples, 9, seed=0)
    assert len({*more}) == 9
    assert {*more} > first
    assert (
        more
        == draw_prompts(builder, examples[::-1], 9, seed=0)
        != draw_prompts(builder, examples, 9, seed=1)
    )
