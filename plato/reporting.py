"""From a run's events to the report of the run: for responses, logs and the command line."""

from __future__ import annotations

from dataclasses import replace

from plato.runs import (
    Mode,
    ModeChosen,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunReport,
)

NO_PLAN = PlanReport(source="none")
_OPEN = frozenset({NodeState.PLANNED, NodeState.RUNNING})


class RunTracker:
    """Follows the events of one run; can report at any time, also when the rest was cancelled."""

    def __init__(self, run: str, requested_mode: Mode) -> None:
        self._run = run
        self._requested = requested_mode
        self._mode: Mode | None = None
        self._reasons: list[str] = []
        self._plan = NO_PLAN
        self._plan_finished = False
        self._nodes: dict[int, NodeReport] = {}
        self._at_s = 0.0

    @property
    def mode(self) -> Mode:
        """How the question is answered, as far as it is known."""
        return self._mode or self._requested

    @property
    def reason(self) -> str | None:
        """Why it is not answered as it was asked to be."""
        return "; ".join(self._reasons) or None

    @property
    def settled(self) -> bool:
        """Whether every node is finished and no more can come."""
        return self._plan_finished and all(
            node.finished_s is not None for node in self._nodes.values()
        )

    def feed(self, event: RunEvent) -> None:
        """Take an event."""
        self._at_s = max(self._at_s, event.at_s)
        match event:
            case ModeChosen(mode=mode, reason=reason):
                if mode is Mode.SEQUENTIAL:
                    self._nodes.clear()
                self._mode = mode
                self._add_reason(reason)
            case NodePlanned(node=node, at_s=at_s, plan=plan):
                self._plan = plan or self._plan
                self._nodes[node.number] = NodeReport(
                    number=node.number,
                    title=node.title,
                    dependencies=node.dependencies,
                    state=NodeState.PLANNED,
                    planned_s=at_s,
                )
            case PlanFinished(report=report, reason=reason):
                self._plan = report
                self._plan_finished = True
                self._add_reason(reason)
            case NodeStarted(number=number, report=report):
                self._nodes[number] = report
            case NodeOutput(number=number) if event.tokens and number in self._nodes:
                self._count(self._nodes[number], event)
            case NodeFinished(number=number, report=report):
                self._nodes[number] = report
            case _:
                pass

    def node(self, number: int) -> NodeReport | None:
        """What is known of a node."""
        return self._nodes.get(number)

    def failed(self, report: NodeReport) -> None:
        """A node could not be decoded; there is no event for it, as the run ends with it."""
        self._nodes[report.number] = report

    def report(self, degraded: tuple[str, ...] = (), *, ended_s: float | None = None) -> RunReport:
        """The run as it stands; what has not ended counts as cancelled.

        Without `ended_s`, it has taken until the last event.
        """
        nodes = tuple(
            replace(node, state=NodeState.CANCELLED) if node.state in _OPEN else node
            for _, node in sorted(self._nodes.items())
        )
        return RunReport(
            run=self._run,
            requested_mode=self._requested,
            mode=self.mode,
            reason=self.reason,
            plan=self._plan,
            nodes=nodes,
            prompt_tokens=self._plan.prompt_tokens + sum(node.prompt_tokens for node in nodes),
            cached_tokens=self._plan.cached_tokens + sum(node.cached_tokens for node in nodes),
            output_tokens=sum(node.tokens for node in nodes),
            duration_s=self._at_s if ended_s is None else ended_s,
            degraded=degraded,
        )

    def _count(self, known: NodeReport, output: NodeOutput) -> None:
        """For nodes that are cancelled in mid-stream: their tokens were decoded, too."""
        self._nodes[output.number] = replace(
            known,
            tokens=max(known.tokens, output.offset + len(output.tokens)),
            cached_tokens=output.cached_tokens,
            first_token_s=output.at_s if known.first_token_s is None else known.first_token_s,
        )

    def _add_reason(self, reason: str | None) -> None:
        if reason is not None and reason not in self._reasons:
            self._reasons.append(reason)
