"""The OpenAPI document of the API, made of its routes and of the types that they declare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from plato.api.answers.sse import MEDIA_TYPE
from plato.api.errors import ErrorBody
from plato.api.manners import REQUEST_ID
from plato.api.operation import Operation, operation, operation_of
from plato.api.questions.body import JSON
from plato.api.routing import Resource
from plato.errors import AuthenticationError, HostError, PlatoError
from plato.settings import Settings
from plato.version import __version__

VERSION = "3.2.0"
"""Of OpenAPI; the first that describes the events of a stream (`itemSchema`)."""
WAIT = "Retry-After"
_REF = "#/components/schemas/{model}"
_HEADERS = "#/components/headers/"
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_OWN_WORDS = {
    "run_id": "Id of the run, also as that of its answer: `chatcmpl-ID`, `cmpl-ID`, `resp_ID`.",
    "name": "Name of a model.",
}
_KEY = "key"
"""The name of the only security scheme."""

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]


class OpenApiRoutes:
    """`/openapi.json`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._document: Json | None = None
        """Made when it is first asked for."""

    @operation(dict[str, Any])
    async def get(self, request: Request) -> JSONResponse:
        """This document."""
        if self._document is None:
            self._document = openapi_document(request.app.routes, self._settings)
        return JSONResponse(self._document)


def openapi_document(routes: Iterable[BaseRoute], settings: Settings) -> Json:
    """The document of all resources among `routes`."""
    resources = [route for route in routes if isinstance(route, Resource)]
    passing = bool(settings.upstreams)
    schemas = _Schemas(
        operation_of(handler) for route in resources for handler in route.handlers.values()
    )
    return {
        "openapi": VERSION,
        "info": {
            "title": "Plato",
            "version": __version__,
            "description": "Answers long questions faster by planning before decoding. As OpenAI's "
            "API, with the extension object `plato`.",
        },
        "paths": {
            _PATH_PARAMETER.sub(r"{\1}", route.path): {
                method.lower(): _operation(route, handler, schemas, passing)
                for method, handler in route.handlers.items()
            }
            for route in resources
        },
        "components": {
            "schemas": schemas.components,
            "headers": {
                REQUEST_ID: _header("Id of the run, if there is one.", "string"),
                WAIT: _header("Seconds until the request can be sent again.", "integer"),
            },
            "securitySchemes": {_KEY: _security_scheme(settings)},
        },
        "security": [{_KEY: []}] if settings.protected else [{_KEY: []}, {}],
    }


def _security_scheme(settings: Settings) -> Json:
    if settings.tenant_header is not None:
        return {"type": "apiKey", "in": "header", "name": settings.tenant_header}
    return {"type": "http", "scheme": "bearer", "description": "An API key."}


def _header(description: str, kind: str) -> Json:
    return {"description": description, "schema": {"type": kind}}


class _Schemas:
    """The JSON schemas of all types that operations declare."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        operations = tuple(operations)
        given = [kind for one in operations for kind in (one.query, one.headers)]
        self._parameters = {kind.__name__ for kind in given if kind is not None}
        # By id: not every type is hashable.
        wanted: dict[tuple[int, Mode], Any] = {(id(ErrorBody), "serialization"): ErrorBody}
        for declared in operations:
            for kind in (declared.body, declared.query, declared.headers):
                wanted[id(kind), "validation"] = kind
            for kind in (*declared.answers.values(), declared.stream):
                wanted[id(kind), "serialization"] = kind
        found, definitions = TypeAdapter.json_schemas(
            [(key, mode, TypeAdapter(kind)) for (key, mode), kind in wanted.items() if kind],
            ref_template=_REF,
        )
        self._found = found
        self._models: Json = definitions["$defs"]

    @property
    def components(self) -> Json:
        """The models of bodies and answers, by name."""
        return {
            name: schema for name, schema in self._models.items() if name not in self._parameters
        }

    def of(self, kind: Any, mode: Mode = "serialization") -> Json:
        """The schema of a type; most are references to `components`."""
        return self._found[id(kind), mode]

    def parameters(self, kind: type[BaseModel] | None, place: str) -> Iterator[Json]:
        """The fields of a model as parameters."""
        if kind is None:
            return
        model = self._models[kind.__name__]
        for name, schema in model["properties"].items():
            # A field without a value is left out of a query.
            (given,) = (kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"})
            described = {"description": schema["description"]} if "description" in schema else {}
            yield {"name": name, "in": place, "schema": given, **described}


def _operation(
    route: Resource, handler: Callable[..., Any], schemas: _Schemas, passing: bool
) -> Json:
    declared, text = operation_of(handler), inspect.getdoc(handler) or ""
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _OWN_WORDS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _PATH_PARAMETER.findall(route.path)
    ]
    parameters += schemas.parameters(declared.query, "query")
    parameters += schemas.parameters(declared.headers, "header")
    described: Json = {
        "summary": text.partition("\n")[0],
        "parameters": parameters,
        "responses": dict(_responses(route, declared, schemas)),
    }
    if declared.passed and passing:
        described["responses"]["default"] = {
            "description": "What the upstream server answers to a request that is passed on to it."
        }
    if declared.body is not None:
        content = {JSON: {"schema": schemas.of(declared.body, "validation")}}
        described["requestBody"] = {"required": True, "content": content}
    if route.tenants is None:
        described["security"] = []
    return described


def _responses(
    route: Resource, declared: Operation, schemas: _Schemas
) -> Iterator[tuple[str, Json]]:
    identified = {REQUEST_ID: {"$ref": f"{_HEADERS}{REQUEST_ID}"}}
    for status, kind in sorted(declared.answers.items()):
        content: Json = {} if kind is None else {JSON: {"schema": schemas.of(kind)}}
        if status == 200 and declared.stream is not None:
            item = _event(schemas.of(declared.stream), declared.ends_with)
            content[MEDIA_TYPE] = {"itemSchema": item}
        response: Json = {"description": HTTPStatus(status).phrase, "headers": identified}
        yield str(status), response | ({"content": content} if content else {})
    errors: list[type[PlatoError]] = [*declared.errors, PlatoError]
    if route.tenants is not None:
        errors += [AuthenticationError, HostError]
    wait = {WAIT: {"$ref": f"{_HEADERS}{WAIT}"}}
    for status in sorted({error.status for error in errors} - declared.answers.keys()):
        kinds = dict.fromkeys(error for error in errors if error.status == status)
        yield (
            str(status),
            {
                "description": "\n".join(f"`{kind.code}`: {_summary(kind)}" for kind in kinds),
                "headers": identified | (wait if status in (429, 503) else {}),
                "content": {JSON: {"schema": schemas.of(ErrorBody)}},
            },
        )


def _event(data: Json, last: str | None) -> Json:
    """The schema of a server-sent event."""
    texts: list[Json] = [{"type": "string", "contentMediaType": JSON, "contentSchema": data}]
    if last is not None:
        texts.append({"const": last})
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "event": {"type": "string"},
            "data": {"anyOf": texts},
        },
    }


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]
