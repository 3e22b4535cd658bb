"""A runtime in this process, asked as a server is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.api.questions.requests import to_run_request, validate_request
from plato.client.answer import Answer, Asker, Question, Update, stream_body
from plato.runs import RunFailed, RunFinished, RunState

if TYPE_CHECKING:
    # It imports torch, which a client of a server does not need.
    from plato.runtime import Runtime


class LocalClient(Asker):
    """A client of a runtime, which it owns."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def stream(self, question: Question, **options: Any) -> AsyncGenerator[Update]:
        """See `Asker.stream`."""
        # Validate as the server does, so that invalid options give the same errors.
        settings, tools = self._runtime.settings, self._runtime.tools
        request = to_run_request(
            validate_request(stream_body(question, options)),
            settings=settings,
            context_length=tools.context_length,
            sampling=tools.sampling,
        )
        state = RunState(request)
        async with aclosing(self._runtime.service.answer(state)) as batches:
            async for event in (event async for events in batches for event in events):
                ended = isinstance(event, RunFinished | RunFailed)
                yield Update(event.text, None if ended else event)
        answer = state.answer()
        report = answer.report
        info, usage = PlatoInfo.of(report), Usage.of(report)
        yield Update(answer=Answer(answer.text, answer.finish_reason, info, usage))

    async def close(self) -> None:
        """Close the runtime."""
        await self._runtime.close()
