"""A run as a document."""

from __future__ import annotations

from plato.exports.recording import Recording
from plato.runs import NodeReport

_COLUMNS = ("part", "title", "needs", "start", "end", "tokens", "prompt")


def to_markdown(recording: Recording) -> str:
    """The question, the answer, and a table of the parts."""
    run = recording.run
    info = run.plato
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_row, recording.nodes)]
    figures = (
        run.model,
        str(info.mode),
        f"{info.timings.duration_s:.1f} s",
        f"{info.usage.output_tokens} tokens",
    )
    sections = [
        f"# {run.question.splitlines()[0] if run.question else run.id}",
        run.answer,
        "---",
        ", ".join(figures),
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    return "\n\n".join(sections) + "\n"


def _row(node: NodeReport) -> tuple[str, ...]:
    cached = f"{node.cached_tokens / node.prompt_tokens:.0%} cached" if node.prompt_tokens else ""
    return (
        str(node.number),
        node.title.replace("|", "\\|"),
        ", ".join(map(str, node.dependencies)),
        _seconds(node.started_s),
        _seconds(node.finished_s),
        str(node.tokens),
        cached,
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
