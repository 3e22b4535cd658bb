"""Items of earlier answers that the input of a response only names.

Clients that count on OpenAI's `store` send `{"type": "item_reference", "id": ...}` for them.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import to_json

from plato.api.answers.tool_calls import call_id
from plato.api.passthrough.outgoing import read_fields
from plato.api.responses.object import item_id
from plato.api.service import RunService
from plato.errors import InvalidRequestError, RunNotFoundError
from plato.runs import RunState

REFERENCE = "item_reference"
MAX_REFERENCES = 100
"""Of a request, to the same item as well: each becomes a whole answer."""
_ITEM_ID = re.compile(r"(?:msg|fc)_([0-9a-f]{32})")


async def with_items(body: bytes, service: RunService, tenant: str) -> bytes:
    """A body with the items of the tenant's runs in place of references to them.

    Other references stay: an upstream may know their items. Raises `InvalidRequestError` if there
    are more than `MAX_REFERENCES`, and `UnavailableError` if the context store is unreachable.
    """
    fields = read_fields(body) if REFERENCE.encode() in body else None
    items = fields.get("input") if fields is not None else None
    if fields is None or not isinstance(items, list):
        return body
    names = [name for item in items if (name := _name(item))]
    if len(names) > MAX_REFERENCES:
        raise InvalidRequestError(
            f"'input' has {len(names)} references to items; send at most {MAX_REFERENCES}, and "
            "other items as they are",
            param="input",
        )
    found = {name: await _item(name, service, tenant) for name in set(names)}
    items = [found.get(_name(item) or "") or item for item in items]
    return to_json({**fields, "input": items}, inf_nan_mode="constants")


def _name(item: object) -> str | None:
    """The id to which `item` refers, if a run can have it."""
    match item:
        case {"type": kind, "id": str(name)} if kind == REFERENCE and _ITEM_ID.fullmatch(name):
            return name
    return None


async def _item(name: str, service: RunService, tenant: str) -> dict[str, Any] | None:
    """The item with the id `name`, as clients send it; None if the tenant has no such."""
    try:
        snapshot = await service.snapshot(tenant, name.partition("_")[2])
    except RunNotFoundError:
        return None
    asked, state = snapshot.request, RunState(snapshot.request, snapshot.events)
    if name != item_id(asked):
        return None
    if asked.function is None:
        return {"role": "assistant", "content": state.text}
    call = {"call_id": call_id(asked.run_id), "name": asked.function, "arguments": state.text}
    return {"type": "function_call", **call}
