"""What makes it Plato: dependencies are kept, the rest overlaps, and planning too."""

from __future__ import annotations

import asyncio
from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.end_to_end.server import Server

DIAMOND = [
    {"title": "Rain and roof area", "max_tokens": 24},
    {"title": "Water collected", "dependencies": [1], "max_tokens": 32},
    {"title": "Water used", "dependencies": [1], "max_tokens": 32},
    {"title": "Size of the tank", "dependencies": [1, 2, 3], "max_tokens": 24},
]
SHORT = [{**part, "max_tokens": 8} for part in DIAMOND]
QUESTION = "How much water does a roof collect in a year, and what tank does it need?"


def ask(client: OpenAI, plato: dict[str, Any], **options: Any) -> Any:
    return client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": QUESTION}],
        extra_body={"plato": plato},
        **options,
    )


def test_a_diamond_keeps_its_dependencies_and_overlaps(client: OpenAI) -> None:
    answer = ask(
        client,
        {
            "mode": "plato",
            "plan": DIAMOND,
            "prompts": True,
            "headings": True,
        },
    )
    one, two, three, four = answer.plato["graph"]["nodes"]

    assert all(node["tokens"] > 8 for node in (one, two, three, four))
    texts = _texts(answer.choices[0].message.content)
    assert two["sees"] == three["sees"] == [1]
    assert four["sees"] == [1, 2, 3]
    for title in ("Rain and roof area", "Water collected", "Water used"):
        assert texts[title]
        assert texts[title] in four["prompt"]
    assert texts["Water collected"] not in three["prompt"]

    assert two["started_s"] >= one["finished_s"]
    assert three["started_s"] >= one["finished_s"]
    assert max(two["started_s"], three["started_s"]) < min(
        two["finished_s"], three["finished_s"]
    ), "parts 2 and 3 overlap"
    assert four["started_s"] >= max(two["finished_s"], three["finished_s"])

    # Each dependent continues the conversation of a dependency: where it is, all that is cached.
    for node, of in ((two, one), (three, one)):
        assert node["continues"] == 1
        # On another decoder only the public prefix is cached, and little is left to compute.
        if node["replica"] == of["replica"]:
            assert node["cached_tokens"] >= of["prompt_tokens"] + of["tokens"] - 1
    assert four["continues"] in (2, 3)


def test_the_first_part_starts_before_the_plan_is_complete(client: OpenAI) -> None:
    answer = ask(client, {"mode": "plato"}, max_tokens=200)
    plan, nodes = answer.plato["plan"], answer.plato["graph"]["nodes"]
    assert plan["source"] == "model"
    assert nodes[0]["first_token_s"] < nodes[-1]["planned_s"]


async def test_the_same_seed_gives_the_same_text_alone_and_in_company(api: Server) -> None:
    async with AsyncOpenAI(
        base_url=f"{api.url}/v1", api_key="test-key", max_retries=0, timeout=240
    ) as client:

        async def one(question: str, seed: int) -> str:
            answer = await client.chat.completions.create(
                model="small",
                messages=[{"role": "user", "content": question}],
                temperature=0.8,
                top_p=0.95,
                seed=seed,
                extra_body={"plato": {"mode": "plato", "plan": SHORT}},
            )
            return str(answer.choices[0].message.content)

        alone = await one(QUESTION, 7)
        others = [one(f"What should I know about number {n}?", n) for n in range(7)]
        among, *_ = await asyncio.gather(one(QUESTION, 7), *others)
        another = await one(QUESTION, 8)
    assert among == alone
    assert another != alone


def _texts(answer: str) -> dict[str, str]:
    """The parts of an answer with headings, by title."""
    texts = {}
    for part in answer.removeprefix("## ").split("\n\n## "):
        title, _, text = part.partition("\n\n")
        texts[title] = text.strip()
    return texts
