"""The KV tree by itself: what is found, what is shared, and what a fork does to it."""

from __future__ import annotations

from typing import Any

import pytest

from plato.engine import Prompt, Segment
from plato.engine.torch.node import TreeNode
from plato.engine.torch.pool import KVPool
from plato.engine.torch.scopes import scope_runs
from plato.engine.torch.tree import KVTree
from tests.engine.torch.test_pool import new_pool


def prompt_of(*words: tuple[int, ...], tenant: str = "") -> Prompt:
    return Prompt(tuple(Segment(word) for word in words), tenant)


class Forest:
    """A tree over a small pool, and sequences that compute in one go."""

    def __init__(self, capacity: int = 12, **settings: Any) -> None:
        self.pool: KVPool = new_pool(capacity)
        self.tree = KVTree(self.pool, **settings)

    def run(self, *words: tuple[int, ...], tenant: str = "") -> tuple[Prompt, TreeNode]:
        """A live sequence that has computed these words; returns the end of its path."""
        prompt = prompt_of(*words, tenant=tenant)
        node, found = self.tree.lock(prompt, prompt.tokens)
        return prompt, self.extend(node, prompt, prompt.tokens[found:], found)[0]

    def extend(
        self, node: TreeNode, prompt: Prompt, tokens: tuple[int, ...], start: int
    ) -> tuple[TreeNode, int]:
        slots = self.pool.allocate(len(tokens))
        node, end = self.tree.commit(node, prompt, tokens, start, slots)
        self.pool.free(slots[end - start :])
        return node, end

    def hold(self, *words: tuple[int, ...], tenant: str = "") -> Prompt:
        """The same, and it has ended."""
        prompt, node = self.run(*words, tenant=tenant)
        self.tree.unlock(node, None)
        self.tree.check_integrity()
        return prompt

    def cached(self, prompt: Prompt) -> int:
        return self.tree.find(prompt, prompt.tokens)[2]


@pytest.fixture
def forest() -> Forest:
    return Forest()


def test_what_two_have_computed_is_kept_once(forest: Forest) -> None:
    tree, pool = forest.tree, forest.pool
    prompt = prompt_of((1, 2, 3, 4))
    # Both began before the other had anything in the tree.
    first, end = forest.extend(tree.root, prompt, (1, 2, 3), 0)
    slots = pool.allocate(4)
    second, end = tree.commit(tree.root, prompt, (1, 2, 3, 4), 0, slots)
    assert end == 4
    assert forest.cached(prompt) == 4
    assert pool.free_count == 8
    held = [slot for node in second.path() for slot in node.slots.tolist()]
    assert slots.tolist() == held, "the second one reads the slots of the first from now on"
    tree.unlock(first, None)
    tree.unlock(second, None)
    tree.check_integrity()
    assert tree.evictable == 4


def test_a_leaf_that_is_its_sequences_own_grows_in_place(forest: Forest) -> None:
    prompt, node = forest.run((1, 2))
    for position, token in enumerate((3, 4, 5), start=2):
        longer, _ = forest.extend(node, prompt, (token,), position)
        assert longer is node
    assert len(list(forest.tree.nodes())) == 1
    assert node.tokens == (1, 2, 3, 4, 5)
    forest.tree.check_integrity()


def test_a_leaf_that_others_read_gets_a_child(forest: Forest) -> None:
    prompt, node = forest.run((1, 2))
    _, other = forest.run((1, 2))
    assert other is node
    longer, _ = forest.extend(node, prompt, (3,), 2)
    assert longer is not node
    again, _ = forest.extend(node, prompt, (3,), 2)
    assert again is longer
    assert (node.locks, longer.locks) == (2, 2)
    forest.tree.check_integrity()


def test_a_fork_splits_a_live_path_and_leaves_its_owner_where_it_is(forest: Forest) -> None:
    prompt, node = forest.run((1, 2, 3, 4))
    _, branch = forest.run((1, 2), (9,))
    assert [step.tokens for step in node.path()] == [(1, 2), (3, 4)]
    assert [step.tokens for step in branch.path()] == [(1, 2), (9,)]
    assert forest.pool.free_count == 12 - 5
    longer, _ = forest.extend(node, prompt, (5,), 4)
    assert longer is node
    forest.tree.check_integrity()


def test_tokens_that_another_computes_right_now_stay_with_their_sequence(forest: Forest) -> None:
    tree = forest.tree
    prompt = prompt_of((1, 2, 3, 4))
    pending = tree.grow(tree.root, prompt, (1, 2, 3, 4), 0, forest.pool.allocate(4))
    tree.advance(pending, 2)
    assert (forest.cached(prompt), tree.pending) == (2, 2)
    node, end = forest.extend(tree.root, prompt, (1, 2, 3), 0)
    assert end == 2
    tree.check_integrity()
    tree.unlock(pending, None)
    assert (forest.cached(prompt), tree.pending) == (2, 0)
    tree.unlock(node, None)
    tree.check_integrity()


def test_looking_finds_less_than_locking_while_something_is_computed(forest: Forest) -> None:
    tree = forest.tree
    prompt = prompt_of((1, 2, 3, 4))
    tree.grow(tree.root, prompt, (1, 2, 3, 4), 0, forest.pool.allocate(4))
    node, found, computed = tree.find(prompt, (1, 2, 9))
    assert (node, found, computed) == (None, 2, 0)
    node, found, _ = tree.find(prompt, (1, 2, 3, 4, 5))
    assert node is not None
    assert found == 4
    assert len(list(tree.nodes())) == 1, "looking changes nothing"


def test_positions_are_split_by_scope() -> None:
    prompt = Prompt((Segment((1, 2), public=True), Segment((3,))), "t", "m")
    assert list(scope_runs(prompt, 0, 5)) == [("public:m", 0, 2), ("tenant:m:t", 2, 5)]
    assert list(scope_runs(prompt, 1, 2)) == [("public:m", 1, 2)]
    assert list(scope_runs(prompt, 3, 5)) == [("tenant:m:t", 3, 5)]
    assert list(scope_runs(Prompt((Segment((1,)),)), 0, 1)) == [("tenant::", 0, 1)]
