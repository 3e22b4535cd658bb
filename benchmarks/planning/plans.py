"""The model's own plans: which are degenerate, which are followed, and what is in them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from plato.planning.titles import is_debris, refusal
from plato.runs import Node

DEBRIS, REPEATED, TOO_FEW_PARTS = "debris", "repeated", "too_few_parts"
PROBLEMS = (DEBRIS, REPEATED, TOO_FEW_PARTS)


@dataclass(frozen=True, slots=True)
class OwnPlan:
    """The plan of one question."""

    source: str
    """Where the question is from: `questions` or `tasks`."""
    question: str
    nodes: tuple[Node, ...] = ()
    followed: bool = False
    """Whether the question is answered by this plan, or sequentially."""
    reason: str | None = None
    """Why the plan ended early or is not followed."""
    refused: str | None = None
    """The title of the line that was refused, where the plan ended, if one was."""

    @property
    def written(self) -> list[str]:
        """All titles that the model wrote, with the refused one."""
        titles = [node.title for node in self.nodes]
        return titles if self.refused is None else [*titles, self.refused]

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it is degenerate, if it is, as the model wrote it."""
        titles = self.written
        # However long they are: that is reported apart.
        refusals = [refusal(title, titles[:n], sys.maxsize) for n, title in enumerate(titles)]
        found = {
            DEBRIS: any(map(is_debris, titles)),
            REPEATED: any(why and why != "no title" for why in refusals),
            TOO_FEW_PARTS: len(titles) < 2,
        }
        return tuple(problem for problem in PROBLEMS if found[problem])

    def row(self) -> dict[str, Any]:
        """For the report."""
        return {
            "source": self.source,
            "question": self.question,
            "titles": [node.title for node in self.nodes],
            "dependencies": [node.dependencies for node in self.nodes],
            "followed": self.followed,
            "reason": self.reason,
            "refused": self.refused,
            "problems": self.problems,
        }


def evaluate(plans: Sequence[OwnPlan]) -> dict[str, Any]:
    """The measures of plans from each source, and of all."""
    sources = dict.fromkeys(plan.source for plan in plans)
    found = {source: describe([p for p in plans if p.source == source]) for source in sources}
    return found | {"all": describe(plans)}


def describe(plans: Sequence[OwnPlan]) -> dict[str, Any]:
    """Shares of plans as the model wrote them, and what those that are followed consist of.

    `degenerate_share`: plans with a title that is debris or repeated, or fewer than two titles,
    before any line or plan is refused. `trimmed_share`: plans that ended at a refused line.
    `guard_share`: plans that are not followed. The rest is over plans that are followed:
    `with_dependencies_share`, plans with any dependency; `parts`, mean per plan; `title_words`,
    mean per title.
    """
    found: dict[str, Any] = {
        "plans": len(plans),
        "degenerate_share": fmean(bool(plan.problems) for plan in plans),
        **{f"{name}_share": fmean(name in plan.problems for plan in plans) for name in PROBLEMS},
        "trimmed_share": fmean(plan.refused is not None for plan in plans),
        "guard_share": fmean(not plan.followed for plan in plans),
    }
    followed = [plan for plan in plans if plan.followed]
    nodes = [node for plan in followed for node in plan.nodes]
    if nodes:
        found |= {
            "with_dependencies_share": fmean(
                any(node.dependencies for node in plan.nodes) for plan in followed
            ),
            "parts": len(nodes) / len(followed),
            "title_words": fmean(len(node.title.split()) for node in nodes),
        }
    return found
