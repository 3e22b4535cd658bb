"""Choosing tokens: every parameter does what it says, and only to its own row."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from plato.engine import RequestRefusedError, SamplingParams
from plato.engine.sampling.distribution import filtered, masses, sample
from plato.engine.sampling.sampler import Choice, Draw, choose, log_probabilities, uniform
from tests.engine.conftest import MakeCore
from tests.engine.helpers import ask, run_alone, run_together, some_tokens

PROBABILITIES = [0.5, 0.25, 0.15, 0.07, 0.03]
LOGITS = torch.tensor(PROBABILITIES).log()
WARM = SamplingParams(temperature=1.0, seed=5)
NONE = float("-inf")


class Allowed:
    """A mask of known tokens that counts how often all of it is asked for."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = set(tokens)
        self.asked = 0

    def allows(self, token: int) -> bool:
        return token in self.tokens

    def bits(self) -> bytes:
        self.asked += 1
        if not self.tokens:
            raise RequestRefusedError("the grammar leads nowhere")
        return sum(1 << token for token in self.tokens).to_bytes(
            max(self.tokens) // 8 + 1, "little"
        )


def token(logits: Sequence[float] | torch.Tensor, draw: Draw) -> int:
    """The choice for a single row."""
    return choose(torch.tensor(logits)[None].clone(), [draw])[0].token


def draws(params: SamplingParams, count: int = 4000) -> list[Draw]:
    return [Draw(params, 1, range(position)) for position in range(count)]


def frequencies(
    params: SamplingParams, logits: torch.Tensor = LOGITS, count: int = 4000
) -> list[float]:
    """How often each token is drawn over as many positions."""
    choices = choose(logits.repeat(count, 1), draws(params, count))
    counts = Counter(choice.token for choice in choices)
    return [counts[token] / count for token in range(len(logits))]


def distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Total variation."""
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / 2


class TestDistribution:
    def test_at_temperature_one_is_the_model_s(self) -> None:
        assert distance(frequencies(WARM), PROBABILITIES) < 0.02

    def test_over_seeds_and_over_nodes_too(self) -> None:
        seeds = [Draw(replace(WARM, seed=seed), 1, ()) for seed in range(4000)]
        nodes = [Draw(WARM, node, ()) for node in range(4000)]
        for keys in (seeds, nodes):
            counts = Counter(choice.token for choice in choose(LOGITS.repeat(4000, 1), keys))
            assert distance([counts[t] / 4000 for t in range(5)], PROBABILITIES) < 0.02

    @pytest.mark.parametrize("temperature", [0.5, 2.0])
    def test_temperature_sharpens_and_flattens(self, temperature: float) -> None:
        powers = [p ** (1 / temperature) for p in PROBABILITIES]
        expected = [p / sum(powers) for p in powers]
        assert distance(frequencies(replace(WARM, temperature=temperature)), expected) < 0.02

    @pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
    def test_the_smallest_temperatures_are_greedy(self, temperature: float) -> None:
        assert frequencies(replace(WARM, temperature=temperature), count=50)[0] == 1

    def test_temperature_zero_is_the_most_likely_token_whatever_the_filters(self) -> None:
        params = SamplingParams(seed=3, top_p=0.5, top_k=2, min_p=0.1)
        assert frequencies(params, count=50)[0] == 1

    def test_what_is_impossible_is_never_drawn(self) -> None:
        logits = torch.tensor([NONE, 0.0, NONE, 0.0, NONE])
        assert frequencies(WARM, logits, 200)[::2] == [0, 0, 0]

    @pytest.mark.parametrize("filters", [{}, {"top_p": 0.5}, {"top_k": 3}, {"min_p": 1.0}])
    def test_the_only_possible_token_is_drawn(self, filters: dict[str, float]) -> None:
        logits = torch.full((3000,), NONE)
        logits[2999] = -40.0
        params = replace(WARM, temperature=2.0, **filters)
        assert [choice.token for choice in choose(logits.repeat(20, 1), draws(params, 20))] == [
            2999
        ] * 20

    @pytest.mark.parametrize(("number", "expected"), [(0.0, 1), (1 - 2**-53, 3), (0.5, 3)])
    def test_numbers_at_an_edge_lead_to_a_possible_token(
        self, number: float, expected: int
    ) -> None:
        logits = torch.tensor([[NONE, 0.0, NONE, 0.0, NONE]])
        assert sample(logits, [WARM], [number]) == [expected]

    def test_a_number_next_to_one_is_within_the_largest_vocabularies(self) -> None:
        # Past 2**53 units a float64 rounds.
        logits = torch.zeros(1, 2**18)
        logits[0, -1] = NONE
        assert sample(logits, [WARM], [1 - 2**-53]) == [2**18 - 2]

    def test_of_no_numbers_at_all_is_some_token(self) -> None:
        assert sample(torch.full((1, 5), math.nan), [WARM], [0.9])[0] in range(5)

    def test_uniform_numbers_depend_on_every_part_of_their_key(self) -> None:
        keys = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (12, 3, 0), (1, 23, 0)]
        numbers = [uniform(*key) for key in keys]
        assert len(set(numbers)) == len(keys)
        assert all(0 <= number < 1 for number in numbers)
        assert numbers == [uniform(*key) for key in keys]


class TestFilters:
    def test_top_p_keeps_the_smallest_set_that_reaches_it(self) -> None:
        found = frequencies(replace(WARM, top_p=0.7))
        assert found[2:] == [0, 0, 0]
        assert distance(found, [2 / 3, 1 / 3, 0, 0, 0]) < 0.02

    def test_top_p_keeps_the_most_likely_token_always(self) -> None:
        assert frequencies(replace(WARM, top_p=1e-6), count=50)[0] == 1

    def test_top_k_keeps_so_many(self) -> None:
        found = frequencies(replace(WARM, top_k=3))
        assert distance(found, [5 / 9, 2.5 / 9, 1.5 / 9, 0, 0]) < 0.02
        assert found[3:] == [0, 0]

    @pytest.mark.parametrize("top_k", [0, 5, 6, 10**9])
    def test_a_top_k_of_the_vocabulary_or_more_keeps_all(self, top_k: int) -> None:
        assert frequencies(replace(WARM, top_k=top_k), count=500) == frequencies(WARM, count=500)

    def test_min_p_keeps_what_is_likely_enough_beside_the_most_likely(self) -> None:
        found = frequencies(replace(WARM, min_p=0.29))
        assert distance(found, [5 / 9, 2.5 / 9, 1.5 / 9, 0, 0]) < 0.02
        assert found[3:] == [0, 0]

    @pytest.mark.parametrize("filters", [{"min_p": 1.0}, {"top_k": 1}, {"top_p": 0.1}])
    def test_equally_likely_tokens_stay_or_go_together(self, filters: dict[str, float]) -> None:
        logits = torch.tensor([1.0, 3.0, 2.9, 3.0, 3.0])
        found = frequencies(replace(WARM, **filters), logits)
        assert distance(found, [0, 1 / 3, 0, 1 / 3, 1 / 3]) < 0.03

    def test_each_works_on_what_the_one_before_it_kept(self) -> None:
        # Of all tokens the first two reach 0.7; of the three that top-k keeps, 0.75 / 0.9 do too,
        # and of the two that min-p keeps, the first alone does not reach 0.6 of everything.
        assert frequencies(replace(WARM, top_k=3, top_p=0.84))[2] > 0
        assert frequencies(replace(WARM, top_p=0.74))[2:] == [0, 0, 0]
        assert frequencies(replace(WARM, min_p=0.5, top_p=0.6))[1] == 0
        assert frequencies(replace(WARM, top_p=0.6))[1] > 0

    @pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
    def test_what_is_kept_is_what_transformers_keeps(self, spread: float) -> None:
        # From a few to thousands of tokens: past what is sorted at first.
        from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        logits = torch.randn(12, 5000, generator=torch.Generator().manual_seed(1)) * spread
        settings = [
            SamplingParams(1.0, top_p=p, top_k=k, min_p=m)
            for p, k, m in [
                (0.1, 0, 0.0),
                (0.9, 0, 0.0),
                (0.99, 0, 0.0),
                (0.999, 0, 0.01),
                (1.0, 1, 0.0),
                (1.0, 64, 0.0),
                (1.0, 65, 0.0),
                (1.0, 4999, 0.0),
                (0.9, 50, 0.0),
                (0.5, 3000, 0.0),
                (0.9, 100, 0.05),
                (1.0, 0, 0.3),
            ]
        ]
        kept = filtered(masses(logits.clone(), [1.0] * 12), settings) > 0
        for row, params in enumerate(settings):
            # In float64, or the reference's own sums are off at the edge.
            expected = logits[row : row + 1].double()
            if params.min_p:
                expected = MinPLogitsWarper(params.min_p)(None, expected)
            if params.top_k:
                expected = TopKLogitsWarper(params.top_k)(None, expected)
            if params.top_p < 1:
                expected = TopPLogitsWarper(params.top_p)(None, expected)
            different = (kept[row] != (expected[0] > NONE)).sum()
            assert different == 0, params


def mixed_batch(rows: int, vocabulary: int, seed: int) -> tuple[torch.Tensor, list[Draw]]:
    """Rows of every kind."""
    pick = random.Random(seed)
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    logits[:, ::5] = logits[:, :1]  # Ties.
    batch = []
    for row in range(rows):
        params = SamplingParams(
            temperature=pick.choice([0.0, 0.7, 1.0, 1.6]),
            top_p=pick.choice([1.0, 1.0, 0.95, 0.5]),
            seed=pick.randrange(100),
            repetition_penalty=pick.choice([1.0, 1.3]),
            penalty_exempt=frozenset({3}),
            top_k=pick.choice([0, 0, 5, 100]),
            min_p=pick.choice([0.0, 0.1]),
            presence_penalty=pick.choice([0.0, 0.5]),
            frequency_penalty=pick.choice([0.0, -0.3]),
            logit_bias=pick.choice([(), ((7, 3.0),), ((1, 2.0), (4, -100.0))]),
            penalised=pick.choice([(), (2, 3, 6)]),
        )
        output = pick.choices(range(vocabulary), k=pick.choice([0, 1, 30]))
        allowed = Allowed(pick.sample(range(vocabulary), vocabulary // 2))
        mask = pick.choice([None, allowed])
        batch.append(Draw(params, row, output, mask, pick.choice([(), (), (5, 0)])))  # type: ignore[arg-type]
    return logits, batch


class TestRows:
    @pytest.mark.parametrize("vocabulary", [1003, 49152])
    @pytest.mark.parametrize("seed", range(4))
    def test_are_chosen_alone_as_among_others(self, vocabulary: int, seed: int) -> None:
        logits, batch = mixed_batch(9, vocabulary, seed)
        together = choose(logits.clone(), batch)
        alone = [choose(logits[row : row + 1].clone(), [batch[row]])[0] for row in range(9)]
        assert together == alone
        order = list(range(9))
        random.Random(seed).shuffle(order)
        shuffled = choose(logits[order].clone(), [batch[row] for row in order])
        assert shuffled == [together[row] for row in order]

    @pytest.mark.parametrize("vocabulary", [1003, 49151])
    def test_have_the_same_distribution_bit_for_bit_in_every_batch(self, vocabulary: int) -> None:
        logits = torch.randn(7, vocabulary) * 4
        together = masses(logits.clone(), [0.7] * 7)
        for row in range(7):
            assert torch.equal(masses(logits[row : row + 1].clone(), [0.7])[0], together[row])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("seed", range(4))
    def test_are_chosen_on_a_gpu_as_on_a_cpu(self, seed: int) -> None:
        logits, batch = mixed_batch(9, 49152, seed)
        there = choose(logits.cuda(), batch)
        assert [choice.token for choice in there] == [c.token for c in choose(logits, batch)]

    def test_that_are_all_greedy_are_the_most_likely_tokens(self) -> None:
        logits = torch.randn(16, 1000)
        expected = logits.argmax(1).tolist()
        choices = choose(logits, [Draw(SamplingParams(), row, ()) for row in range(16)])
        assert choices == [Choice(token) for token in expected]

    def test_with_equal_logits_choose_the_first(self) -> None:
        assert token([0.0, 1.0, 1.0, 1.0], Draw(SamplingParams(), 1, ())) == 1


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
            ask(self.PROMPT, node=1, sampling=sampling, run_id="another", attempt=1),
        ]
        first, node, seed, run = (s.tokens for s in run_together(make_core(), requests))
        assert len({first, node, seed}) == 3
        assert run == first

    def test_continued_from_every_cut(self, make_core: MakeCore) -> None:
        sampling = SamplingParams(
            temperature=1.5,
            seed=1,
            repetition_penalty=1.3,
            presence_penalty=0.5,
            frequency_penalty=0.4,
            top_k=200,
            logit_bias=((77, 4.0),),
        )
        whole = run_alone(make_core(), ask(self.PROMPT, sampling=sampling)).tokens
        for cut in range(1, 8):
            request = ask(self.PROMPT, sampling=sampling, emitted=whole[:cut])
            assert run_alone(make_core(), request).tokens == whole[cut:]


def adjusted(logits: Sequence[float], output: Sequence[int], params: SamplingParams) -> list[float]:
    """The logits after bias and penalties, as differences from the last one.

    Read off the reported log probabilities, so the last one should not be touched.
    """
    row = torch.tensor(logits)
    draw = Draw(params, 1, output, score=tuple(range(len(logits))))
    (choice,) = choose(row[None], [draw])
    return [score - choice.scores[-1] + logits[-1] for score in choice.scores]


class TestPenalties:
    def test_repetition_divides_positive_and_multiplies_negative_logits_of_the_output(self) -> None:
        params = SamplingParams(repetition_penalty=2.0)
        found = adjusted([2.0, -2.0, 2.0, -2.0, 0.0, 1.0], [0, 1, 0, 4], params)
        assert found == pytest.approx([1.0, -4.0, 2.0, -2.0, 0.0, 1.0], abs=1e-5)

    def test_presence_subtracts_once(self) -> None:
        params = SamplingParams(presence_penalty=0.5)
        found = adjusted([2.0, -2.0, 2.0, 1.0], [0, 1, 0], params)
        assert found == pytest.approx([1.5, -2.5, 2.0, 1.0], abs=1e-5)

    def test_frequency_subtracts_for_each_time(self) -> None:
        params = SamplingParams(frequency_penalty=0.5)
        found = adjusted([2.0, -2.0, 2.0, 1.0], [0, 1, 0], params)
        assert found == pytest.approx([1.0, -2.5, 2.0, 1.0], abs=1e-5)

    def test_bias_comes_before_repetition_and_that_before_the_others(self) -> None:
        params = SamplingParams(
            repetition_penalty=2.0,
            presence_penalty=0.25,
            frequency_penalty=0.5,
            logit_bias=((0, 4.0), (1, -3.0)),
        )
        found = adjusted([2.0, 1.0, 2.0, 1.0], [0, 0, 1], params)
        assert found == pytest.approx(
            [(2.0 + 4.0) / 2 - 0.25 - 2 * 0.5, (1.0 - 3.0) * 2 - 0.25 - 0.5, 2.0, 1.0], abs=1e-5
        )

    def test_leave_exempt_tokens_alone(self) -> None:
        params = SamplingParams(
            repetition_penalty=2.0,
            presence_penalty=1.0,
            frequency_penalty=1.0,
            penalty_exempt=frozenset({1, 9}),
        )
        found = adjusted([4.0, 4.0, 1.0], [0, 1, 1], params)
        assert found == pytest.approx([0.0, 4.0, 1.0], abs=1e-5)

    def test_count_what_is_penalised_from_the_start(self) -> None:
        params = SamplingParams(
            repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, penalised=(0, 1)
        )
        found = adjusted([4.0, -2.0, 2.0, 1.0], [], params)
        assert found == pytest.approx([1.25, -4.75, 2.0, 1.0], abs=1e-5)
        # Named twice is named once, and the output counts as ever.
        named_twice = replace(params, penalised=(0, 1, 0, 1))
        assert adjusted([4.0, -2.0, 2.0, 1.0], [], named_twice) == found
        assert adjusted([4.0, -2.0, 2.0, 1.0], [2], params)[2] == pytest.approx(0.25, abs=1e-5)

    def test_exempt_tokens_are_not_penalised_either(self) -> None:
        params = SamplingParams(
            repetition_penalty=2.0, penalised=(0, 1), penalty_exempt=frozenset({1})
        )
        assert adjusted([4.0, 4.0, 1.0], [], params) == pytest.approx([2.0, 4.0, 1.0], abs=1e-5)

    def test_without_a_penalty_nothing_is_penalised(self) -> None:
        params = SamplingParams(penalised=(0, 1))
        assert not params.penalises
        assert adjusted([4.0, 4.0, 1.0], [0], params) == pytest.approx([4.0, 4.0, 1.0], abs=1e-5)
        for penalty in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
            assert replace(params, **{penalty: 0.5}).penalises

    def test_count_output_and_not_the_prompt(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        plain = run_alone(make_core(), ask(prompt, max_tokens=1)).tokens
        # With the winner in its prompt, the request still chooses it at first.
        penalty = SamplingParams(repetition_penalty=1e6, presence_penalty=1e6)
        request = ask((*plain, *prompt), max_tokens=1)
        chosen = run_alone(make_core(), request).tokens
        with_winner = ask((*chosen, *request.prompt.tokens), max_tokens=1)
        winner = run_alone(make_core(), with_winner).tokens
        assert run_alone(make_core(), replace(with_winner, sampling=penalty)).tokens == winner

    @pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty"])
    def test_keep_output_from_repeating(self, make_core: MakeCore, penalty: str) -> None:
        prompt = some_tokens(10)
        sampling = SamplingParams(logit_bias=((77, 1000.0),), **{penalty: 1e6})
        tokens = run_alone(make_core(), ask(prompt, max_tokens=40, sampling=sampling)).tokens
        assert tokens[0] == 77
        assert len(set(tokens)) == 40
        emitted = tokens[:5]
        again = ask(prompt, max_tokens=40, sampling=sampling, emitted=emitted)
        assert not set(run_alone(make_core(), again).tokens) & set(emitted)


class TestBias:
    def test_works_at_every_position(self, make_core: MakeCore) -> None:
        sampling = SamplingParams(logit_bias=((77, 1e6),))
        assert set(run_alone(make_core(), ask(some_tokens(10), sampling=sampling)).tokens) == {77}

    def test_keeps_a_token_out(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        first = run_alone(make_core(), ask(prompt)).tokens[0]
        sampling = SamplingParams(logit_bias=((first, -1e6),))
        assert first not in run_alone(make_core(), ask(prompt, sampling=sampling)).tokens


class TestScores:
    def test_are_of_the_named_tokens_in_the_first_chunk(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        plain = run_alone(make_core(), ask(prompt))
        chosen = plain.tokens[0]
        stream = run_alone(make_core(), ask(prompt, score=(5, chosen, 9)))
        scores = stream.chunks[0].scores
        assert len(scores) == 3
        assert max(scores) == scores[1]
        assert all(score < 0 for score in scores)
        assert all(not chunk.scores for chunk in (*stream.chunks[1:], *plain.chunks))

    def test_are_what_the_bias_makes_of_them(self, make_core: MakeCore) -> None:
        request = ask(some_tokens(10), score=(5, 9))
        plain = run_alone(make_core(), request).chunks[0].scores
        sampling = SamplingParams(logit_bias=((9, 2.0),))
        biased = run_alone(make_core(), replace(request, sampling=sampling)).chunks[0].scores
        assert biased[1] - biased[0] == pytest.approx(plain[1] - plain[0] + 2.0, abs=1e-4)

    def test_change_nothing_of_the_choice(self, make_core: MakeCore) -> None:
        prompt = some_tokens(10)
        scored = run_alone(make_core(), ask(prompt, score=(1, 2)))
        assert scored.tokens == run_alone(make_core(), ask(prompt)).tokens

    def test_are_log_probabilities_in_the_order_of_their_tokens(self) -> None:
        logits = LOGITS.clone()
        logits[3] = NONE
        total = sum(PROBABILITIES) - PROBABILITIES[3]
        found = log_probabilities(logits, (4, 0, 3, 0))
        expected = [PROBABILITIES[4] / total, PROBABILITIES[0] / total, 0, PROBABILITIES[0] / total]
        assert [math.exp(score) for score in found] == pytest.approx(expected)

    def test_are_minus_infinity_where_the_grammar_forbids(self) -> None:
        draw = Draw(SamplingParams(), 1, (), Allowed([1, 3]), (0, 1, 3))  # type: ignore[arg-type]
        scores = choose(LOGITS[None].clone(), [draw])[0].scores
        assert scores[0] == NONE
        assert math.fsum(map(math.exp, scores)) == pytest.approx(1)

    def test_are_refused_for_tokens_that_the_model_lacks(self, make_core: MakeCore) -> None:
        core = make_core()
        with pytest.raises(RequestRefusedError, match=r"score has token 999999, .*; remove it"):
            run_alone(core, ask(some_tokens(3), score=(5, 999_999)))
        assert not core.has_work


class TestMasks:
    @pytest.mark.parametrize("seed", range(8))
    def test_leave_the_most_likely_allowed_token(self, seed: int) -> None:
        pick = random.Random(seed)
        logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(seed)).round(
            decimals=1
        )
        masks = [Allowed(pick.sample(range(500), pick.choice([1, 3, 250, 490]))) for _ in range(20)]
        expected = [
            max(mask.tokens, key=lambda place, row=row: (row[place].item(), -place))
            for row, mask in zip(logits, masks, strict=True)
        ]
        batch = [Draw(SamplingParams(), 1, (), mask) for mask in masks]  # type: ignore[arg-type]
        assert [choice.token for choice in choose(logits, batch)] == expected

    def test_are_not_worked_out_for_a_greedy_choice_that_is_allowed(self) -> None:
        allowed, refused = Allowed([0, 4]), Allowed([3, 4])
        batch = [Draw(SamplingParams(), 1, (), mask) for mask in (allowed, refused)]  # type: ignore[arg-type]
        assert [choice.token for choice in choose(LOGITS.repeat(2, 1), batch)] == [0, 3]
        assert (allowed.asked, refused.asked) == (0, 1)

    def test_renormalise_what_is_drawn(self) -> None:
        mask = Allowed([1, 3])
        batch = [replace(draw, mask=mask) for draw in draws(WARM)]
        counts = Counter(choice.token for choice in choose(LOGITS.repeat(4000, 1), batch))
        assert counts.keys() == {1, 3}
        assert counts[1] / 4000 == pytest.approx(25 / 32, abs=0.02)

    def test_shorter_than_the_vocabulary_allow_nothing_past_them(self) -> None:
        mask = Allowed([0, 2])
        batch = [replace(draw, mask=mask) for draw in draws(WARM, 100)]
        assert {choice.token for choice in choose(torch.zeros(100, 12), batch)} == {0, 2}

    @pytest.mark.parametrize("params", [SamplingParams(), WARM])
    def test_that_allow_nothing_are_an_error_of_their_row_only(
        self, params: SamplingParams
    ) -> None:
        masks = [Allowed([2]), Allowed([]), None]
        batch = [Draw(params, 1, (), mask) for mask in masks]  # type: ignore[arg-type]
        first, dead, last = choose(LOGITS.repeat(3, 1), batch)
        assert (first.token, first.error) == (2, None)
        assert isinstance(dead.error, RequestRefusedError)
        assert last == choose(LOGITS[None].clone(), [Draw(params, 1, ())])[0]


def test_parameters_are_checked(make_core: MakeCore) -> None:
    core = make_core()
    with pytest.raises(RequestRefusedError, match="logit_bias has token 999999"):
        run_alone(core, ask(some_tokens(3), sampling=SamplingParams(logit_bias=((999_999, 1.0),))))
    assert not core.has_work
