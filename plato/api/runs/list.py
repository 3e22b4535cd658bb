"""`GET /v1/runs`: the runs of a tenant, newest first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from plato.api.access.limits import Limits
from plato.api.access.tenants import tenant_of
from plato.api.operation import LIMITED, operation
from plato.api.questions.requests import parse_query, plain_run_id
from plato.api.service import RunService
from plato.api.wire import MAX_NAME_CHARS, AnswerModel
from plato.errors import AuthenticationError, InvalidRequestError
from plato.runs import Mode, RunOverview

RunStatus = Literal["running", "done", "failed", "cancelled"]
MAX_RUNS = 100


class ListQuery(BaseModel):
    """The query of a list."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int, Field(ge=1, le=MAX_RUNS)] = 20
    before: Annotated[str, Field(max_length=MAX_NAME_CHARS)] | None = None
    """Id of a run: only older ones. `next_before` of a page continues the list."""
    status: RunStatus | None = None


class ListedRun(AnswerModel):
    """A run without its answer, which is at `/v1/runs/{id}`."""

    id: str
    object: Literal["run"] = "run"
    status: str
    model: str
    created: int
    mode: Mode
    question: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, overview: RunOverview, model: str) -> ListedRun:
        """Describe a run."""
        asked = overview.request
        return cls(
            id=asked.run_id,
            status=overview.status,
            model=model,
            created=int(asked.created_unix_s),
            mode=overview.mode,
            question=asked.messages[-1].content,
            metadata=dict(asked.metadata),
        )


class RunList(AnswerModel):
    """A page of a list, as at OpenAI."""

    object: Literal["list"] = "list"
    data: tuple[ListedRun, ...]
    has_more: bool
    """Whether the list continues. A page can be short although it does, if its status is rare."""
    next_before: str | None
    """`before` of the next page, if there is one."""


class RunListRoutes:
    """Lists of runs."""

    def __init__(self, service: RunService, model: str, limits: Limits) -> None:
        """`model` is the name of the model in responses."""
        self._service = service
        self._model = model
        self._limits = limits

    @operation(RunList, query=ListQuery, errors=(*LIMITED, InvalidRequestError))
    async def list(self, request: Request) -> Response:
        """The runs of the caller; those of nobody in particular are not told to anybody."""
        query = parse_query(ListQuery, request)
        tenant = tenant_of(request)
        if not tenant:
            raise AuthenticationError(
                "runs are listed by API key; send the one that they were created with"
            )
        with self._limits.request(tenant):
            before = plain_run_id(query.before) if query.before else None
            page = await self._service.overviews(tenant, before, query.limit, query.status)
        runs = RunList(
            data=tuple(ListedRun.of(run, self._model) for run in page.runs),
            has_more=page.next_before is not None,
            next_before=page.next_before,
        )
        return runs.as_response()
