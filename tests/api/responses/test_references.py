"""Items of earlier answers that are only referred to, over a real runtime."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from plato.api.responses.references import MAX_REFERENCES
from plato.runs import RunSnapshot
from plato.runtime import Runtime

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

PATH = "/v1/responses"
FIRST = {"role": "user", "content": "Why is the sea salty?"}
NEXT = {"role": "user", "content": "And lakes?"}
SEA = {
    "type": "function",
    "name": "sea",
    "parameters": {"type": "object", "properties": {"name": {"enum": ["red", "dead"]}}},
}
OPTIONS = {"mode": "sequential", "prompts": True}


@pytest.fixture
def looked_up(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that are looked up."""
    names: list[str] = []
    snapshot = runtime.service.snapshot

    async def noted(tenant: str, run_id: str) -> RunSnapshot:
        names.append(run_id)
        return await snapshot(tenant, run_id)

    monkeypatch.setattr(runtime.service, "snapshot", noted)
    return names


async def answered(http: httpx.AsyncClient, *items: dict[str, Any], **fields: Any) -> Any:
    body = {"input": items, "max_output_tokens": 6, "plato": OPTIONS, **fields}
    response = await http.post(PATH, json=body)
    assert response.status_code == httpx.codes.OK, response.text
    return response.json()


def reference_to(response: Any) -> dict[str, Any]:
    return {"type": "item_reference", "id": response["output"][0]["id"]}


def prompt_of(response: Any) -> str:
    prompt: str = response["plato"]["graph"]["nodes"][0]["prompt"]
    return prompt


async def test_a_reference_to_an_answer_is_its_text(
    http: httpx.AsyncClient, looked_up: list[str]
) -> None:
    first = await answered(http, FIRST)
    whole = await answered(http, FIRST, first["output"][0], NEXT)
    named = await answered(http, FIRST, reference_to(first), NEXT)
    assert prompt_of(named) == prompt_of(whole)
    assert named["output"][0]["content"] == whole["output"][0]["content"]
    assert named["plato"]["ignored"] == []
    third = await answered(http, *(FIRST, reference_to(first)) * 2, NEXT, reference_to(named), NEXT)
    assert prompt_of(third).count(first["output"][0]["content"][0]["text"]) >= 2
    assert len(looked_up) == 3


async def test_a_reference_to_a_call_is_the_call(http: httpx.AsyncClient) -> None:
    called = await answered(http, FIRST, tools=[SEA], tool_choice="required", max_output_tokens=30)
    (call,) = called["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "30 %"}
    named = await answered(http, FIRST, reference_to(called), result)
    assert f"Call sea({call['arguments']})" in prompt_of(named)
    assert "Result of sea:\n30 %" in prompt_of(named)


@pytest.mark.parametrize("name", ["msg_{}", "rs_{}", "fc_{run}", "{run}", "msg_{run}x", 5, None])
async def test_an_unknown_item_is_not_found(http: httpx.AsyncClient, name: Any) -> None:
    run = (await answered(http, FIRST))["plato"]["run"]
    name = name.format("0" * 32, run=run) if isinstance(name, str) else name
    items = [FIRST, {"type": "item_reference", "id": name}, NEXT]
    refused = await http.post(PATH, json={"input": items})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (404, "input")
    assert repr(name)[:50] in error["message"]
    assert "send the item itself" in error["message"]


async def test_the_answers_of_others_are_not_found(http: httpx.AsyncClient) -> None:
    mine, other = {"Authorization": "Bearer mine"}, {"Authorization": "Bearer other"}
    first = (await http.post(PATH, json={"input": [FIRST]}, headers=mine)).json()
    body = {"input": [FIRST, reference_to(first), NEXT], "max_output_tokens": 6}
    statuses = [
        (await http.post(PATH, json=body, headers=key)).status_code for key in (mine, other)
    ]
    assert statuses == [200, 404]


@pytest.mark.parametrize("distinct", [1, MAX_REFERENCES + 1])
@pytest.mark.hostile
async def test_references_are_bounded(
    http: httpx.AsyncClient, looked_up: list[str], distinct: int
) -> None:
    """A few bytes would else be the length of an answer each, also of the same one."""
    names = [f"msg_{number % distinct:032x}" for number in range(MAX_REFERENCES + 1)]
    items = [{"type": "item_reference", "id": name} for name in names]
    refused = await http.post(PATH, json={"input": [*items, NEXT]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
    assert looked_up == []
