from plato.context import MemoryContextStore

from .examples import node, run


async def test_the_run_written_longest_ago_is_forgotten():
    store = MemoryContextStore(max_runs=2)
    for name in ("one", "two"):
        await store.put_run(run(name))
    await store.put_node(node("one"), 1)
    await store.put_run(run("three"))
    assert await store.get_run("acme", "two") is None
    assert await store.get_run("acme", "one") is not None
    assert list(await store.get_nodes("acme", "one")) == [1]


async def test_many_runs_of_one_tenant_evict_none_of_others():
    store = MemoryContextStore(max_runs=4)
    for name in ("one", "two"):
        await store.put_run(run(name, "quiet"))
    for number in range(10):
        await store.put_run(run(f"run-{number}", "loud"))
    assert [await store.get_run("quiet", name) is not None for name in ("one", "two")] == [True] * 2
    assert await store.get_run("loud", "run-9") is not None


async def test_a_forgotten_run_still_gets_a_greater_fence():
    store = MemoryContextStore(max_runs=1)
    first = await store.acquire("acme", "one", "a", 10)
    await store.put_run(run("two"))
    assert await store.acquire("acme", "one", "b", 10) > first


async def test_a_lease_runs_out_by_the_clock():
    now = 0.0
    store = MemoryContextStore(clock=lambda: now)
    assert await store.acquire("acme", "one", "a", 1.0)
    now = 0.9
    assert await store.acquire("acme", "one", "b", 1.0) is None
    now = 1.0
    assert await store.acquire("acme", "one", "b", 1.0)
