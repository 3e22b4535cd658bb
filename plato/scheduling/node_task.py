"""One node of a run: decoding it, and the events that report it."""

from __future__ import annotations

from dataclasses import replace

from plato.engine import Chunk, GenerateRequest
from plato.errors import PlatoError
from plato.prompting import NodePrompt
from plato.runs import (
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodeQueued,
    NodeReport,
    NodeStarted,
    NodeState,
)
from plato.scheduling.budget import bounded_by_caller
from plato.scheduling.event_log import EventLog
from plato.scheduling.node_decoder import NodeDecoding
from plato.scheduling.services import Services


class NodeTask:
    """Decodes one node, and appends its events to the run's log."""

    def __init__(
        self, request: GenerateRequest, prompt: NodePrompt, log: EventLog, services: Services
    ) -> None:
        status = log.state.node(request.node)
        report = status.report
        self._log = log
        self._services = services
        self._prompt = prompt
        self._bounded = bounded_by_caller(log.state.request, status.node, services.settings)
        self._text: str | None = None
        if log.state.request.include_prompts:
            self._text = services.model.prompt_text(prompt.prompt.tokens)
        self.decoding = NodeDecoding(
            request,
            status,
            on_output=self._output,
            on_queue=self._queue,
            on_start=self._start,
            attempt=status.attempts,
            replica=report.replica,
            epoch=report.epoch,
        )

    async def decode(self) -> None:
        """Decode the node, or the rest of it after a takeover. Raises a `PlatoError`."""
        self._queue(None)
        try:
            await self._services.decoder.decode(self.decoding)
        except PlatoError as error:
            report = self._report(NodeState.FAILED)
            self._log.append(NodeFailed(*self._log.stamp, report.number, report, error.message))
            raise
        self._services.decoder.finished(self.decoding)
        self._finish()

    def restore(self) -> None:
        """Report a node that another scheduler has finished."""
        status = self.decoding.status
        self.decoding.attempt -= 1
        if status.finished is None and status.output is not None:
            # In one piece: followers of the run may have less of it than the context store.
            self._log.append(replace(status.output, at_s=self._log.at_s))
            self._finish()

    def _queue(self, reason: str | None) -> None:
        report = replace(self._report(NodeState.QUEUED), replica="", epoch="")
        attempt = self.decoding.attempt
        self._log.append(NodeQueued(*self._log.stamp, report.number, attempt, report, reason))

    def _start(self) -> None:
        report, attempt = self._report(NodeState.RUNNING), self.decoding.attempt
        self._log.append(NodeStarted(*self._log.stamp, report.number, attempt, report))

    def _output(self, chunk: Chunk) -> None:
        if chunk.text:
            self._log.choose_mode(self._log.state.request.planned_mode)
        self._log.append(
            NodeOutput(
                *self._log.stamp,
                number=chunk.node,
                attempt=chunk.attempt,
                offset=chunk.offset,
                tokens=chunk.tokens,
                node_text=chunk.text,
                cached_tokens=chunk.cached_tokens,
                finish=chunk.finish,
            )
        )

    def _finish(self) -> None:
        finish = self.decoding.status.finish
        assert finish is not None
        report = replace(self._report(NodeState.DONE), finished_s=self._log.at_s)
        self._log.append(NodeFinished(*self._log.stamp, report.number, finish, report))

    def _report(self, state: NodeState) -> NodeReport:
        decoding, prompt, known = self.decoding, self._prompt, self.decoding.status.report
        return replace(
            known,
            state=state,
            started_s=self._log.at_s if known.started_s is None else known.started_s,
            continues=prompt.continues,
            sees=prompt.sees,
            shortened=prompt.shortened,
            bounded_by_caller=self._bounded,
            prompt_tokens=len(prompt.prompt),
            predicted_cached_tokens=decoding.predicted_tokens,
            attempts=decoding.attempt + 1,
            finish=decoding.status.finish,
            replica=decoding.replica,
            epoch=decoding.epoch,
            prompt=self._text,
        )
