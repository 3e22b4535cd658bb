"""Sampling: reproducible anywhere, and distributed as it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from plato.engine import SamplingParams
from plato.engine.torch.sampling import (
    allow_only_,
    penalise_,
    sample,
    top_alternatives,
    uniform,
)
from tests.engine.conftest import MakeCore
from tests.engine.helpers import ask, run_alone, run_together, some_tokens

PROBABILITIES = [0.5, 0.25, 0.15, 0.07, 0.03]
LOGITS = torch.tensor(PROBABILITIES).log()
WARM = SamplingParams(temperature=1.0, seed=5)


def frequencies(params: SamplingParams, draws: int = 4000) -> list[float]:
    counts = Counter(sample(LOGITS.clone(), params, 1, position) for position in range(draws))
    return [counts[token] / draws for token in range(len(LOGITS))]


def distance(left: list[float], right: list[float]) -> float:
    """Total variation."""
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / 2


class TestDistribution:
    def test_at_temperature_one_is_the_model_s(self) -> None:
        assert distance(frequencies(WARM), PROBABILITIES) < 0.02

    def test_over_seeds_and_over_nodes_too(self) -> None:
        seeds = Counter(sample(LOGITS, replace(WARM, seed=s), 1, 0) for s in range(4000))
        nodes = Counter(sample(LOGITS, WARM, node, 0) for node in range(4000))
        for counts in (seeds, nodes):
            assert distance([counts[t] / 4000 for t in range(5)], PROBABILITIES) < 0.02

    @pytest.mark.parametrize("temperature", [0.5, 2.0])
    def test_temperature_sharpens_and_flattens(self, temperature: float) -> None:
        powers = [p ** (1 / temperature) for p in PROBABILITIES]
        expected = [p / sum(powers) for p in powers]
        assert distance(frequencies(replace(WARM, temperature=temperature)), expected) < 0.02

    def test_top_p_keeps_the_smallest_set_that_reaches_it(self) -> None:
        found = frequencies(replace(WARM, top_p=0.7))
        assert found[2:] == [0, 0, 0]
        assert distance(found, [2 / 3, 1 / 3, 0, 0, 0]) < 0.02

    def test_top_p_keeps_the_most_likely_token_always(self) -> None:
        assert frequencies(replace(WARM, top_p=1e-6), 50)[0] == 1

    def test_temperature_zero_is_the_most_likely_token(self) -> None:
        assert frequencies(SamplingParams(seed=3, top_p=0.5), 50)[0] == 1

    def test_what_is_impossible_is_never_drawn(self) -> None:
        logits = torch.tensor([float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")])
        assert {sample(logits, WARM, 1, position) for position in range(200)} == {1, 3}

    def test_uniform_numbers_depend_on_every_part_of_their_key(self) -> None:
        keys = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (12, 3, 0), (1, 23, 0)]
        numbers = [uniform(*key) for key in keys]
        assert len(set(numbers)) == len(keys)
        assert all(0 <= number < 1 for number in numbers)
        assert numbers == [uniform(*key) for key in keys]


class TestReproducibility:
    PROMPT = some_tokens(20)

    def test_the_same_seed_and_node_give_the_same_text_among_others(
        self, make_core: MakeCore
    ) -> None:
        sampling = SamplingParams(temperature=1.5, top_p=0.95, seed=42)
        request = ask(self.PROMPT, node=3, sampling=sampling, max_tokens=20)
        alone = run_alone(make_core(), request)
        others = [
            ask(some_tokens(10 + i, i), node=i, sampling=replace(sampling, seed=i))
            for i in range(7)
        ]
        among = run_together(make_core(), [*others[:4], request, *others[4:]])[4]
        assert among.tokens == alone.tokens

    def test_another_seed_or_node_gives_another_text(self, make_core: MakeCore) -> None:
        sampling = SamplingParams(temperature=1.5, seed=42)
        requests = [
            ask(self.PROMPT, node=1, sampling=sampling),
            ask(self.PROMPT, node=2, sampling=sampling),
            ask(self.PROMPT, node=1, sampling=replace(sampling, seed=43)),
            ask(self.PROMPT, node=1, sampling=sampling, run="another", attempt=1),
        ]
        first, node, seed, run = (s.tokens for s in run_together(make_core(), requests))
        assert len({first, node, seed}) == 3
        assert run == first

    def test_continued_from_every_cut(self, make_core: MakeCore) -> None:
        sampling = SamplingParams(temperature=1.5, seed=1, repetition_penalty=1.3)
        whole = run_alone(make_core(), ask(self.PROMPT, sampling=sampling)).tokens
        for cut in range(1, 8):
            request = ask(self.PROMPT, sampling=sampling, emitted=whole[:cut])
            assert run_alone(make_core(), request).tokens == whole[cut:]


class TestRepetitionPenalty:
    def test_divides_positive_and_multiplies_negative_logits_of_the_output(self) -> None:
        logits = torch.tensor([2.0, -2.0, 2.0, -2.0, 0.0])
        penalise_(logits, [0, 1, 0, 4], SamplingParams(repetition_penalty=2.0))
        assert logits.tolist() == [1.0, -4.0, 2.0, -2.0, 0.0]

    def test_leaves_exempt_tokens_alone(self) -> None:
        logits = torch.tensor([2.0, 2.0])
        exempt = frozenset({1})
        penalise_(logits, [0, 1], SamplingParams(repetition_penalty=2.0, penalty_exempt=exempt))
        assert logits.tolist() == [1.0, 2.0]

    def test_counts_output_and_not_the_prompt(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        plain = run_alone(make_core(), ask(prompt, max_tokens=1)).tokens
        # With the winner in its prompt, the request still chooses it at first.
        penalty = SamplingParams(repetition_penalty=1e6)
        request = ask((*plain, *prompt), max_tokens=1)
        chosen = run_alone(make_core(), request).tokens
        with_winner = ask((*chosen, *request.prompt.tokens), max_tokens=1)
        winner = run_alone(make_core(), with_winner).tokens
        assert run_alone(make_core(), replace(with_winner, sampling=penalty)).tokens == winner

    def test_keeps_output_from_repeating_except_what_is_exempt(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        favourite = 77
        bias = SamplingParams(repetition_penalty=1e6, first_token_bias=((favourite, 1e6),))
        tokens = run_alone(make_core(), ask(prompt, max_tokens=40, sampling=bias)).tokens
        assert len(set(tokens)) == 40
        emitted = tokens[:5]
        again = ask(prompt, max_tokens=40, sampling=bias, emitted=emitted)
        assert not set(run_alone(make_core(), again).tokens) & set(emitted)


class TestFirstToken:
    def test_bias_moves_the_first_token_only(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        sampling = SamplingParams(first_token_bias=((77, 1000.0),))
        tokens = run_alone(make_core(), ask(prompt, sampling=sampling)).tokens
        assert tokens[0] == 77
        assert tokens[1:] == run_alone(make_core(), ask(prompt, (77,), max_tokens=7)).tokens

    def test_bias_is_not_applied_to_a_continuation(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        plain = run_alone(make_core(), ask(prompt)).tokens
        sampling = SamplingParams(first_token_bias=((77, 1000.0),))
        request = ask(prompt, sampling=sampling, emitted=plain[:3])
        assert run_alone(make_core(), request).tokens == plain[3:]

    def test_alternatives_are_reported_before_the_bias_in_the_first_chunk(
        self, make_core: MakeCore
    ) -> None:
        prompt = some_tokens(10)
        plain = run_alone(make_core(), ask(prompt))
        sampling = SamplingParams(first_token_bias=((77, 1000.0),))
        stream = run_alone(make_core(), ask(prompt, sampling=sampling, report_first=4))
        first = stream.chunks[0].first
        assert first[0][0] == plain.tokens[0]
        assert len(first) == 4
        values = [value for _, value in first]
        assert values == sorted(values, reverse=True)
        assert all(value < 0 for value in values)
        assert all(not chunk.first for chunk in (*stream.chunks[1:], *plain.chunks))

    def test_alternatives_are_log_probabilities_without_the_impossible(self) -> None:
        logits = LOGITS.clone()
        logits[3] = float("-inf")
        pairs = top_alternatives(logits, 10)
        assert [token for token, _ in pairs] == [0, 1, 2, 4]
        total = sum(PROBABILITIES) - PROBABILITIES[3]
        found = torch.tensor([value for _, value in pairs]).exp()
        expected = torch.tensor([PROBABILITIES[t] / total for t in (0, 1, 2, 4)])
        torch.testing.assert_close(found, expected)


def test_a_mask_shorter_than_the_vocabulary_allows_nothing_past_it() -> None:
    logits = torch.zeros(12)
    allow_only_(logits, bytes([0b00000101]))
    assert [index for index, value in enumerate(logits.tolist()) if value == 0] == [0, 2]
