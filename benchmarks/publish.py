"""The report: `REPORT.md` and its plots, from the JSON files of the benchmarks.

python -m benchmarks.publish [FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.common.report import RESULTS
from benchmarks.load.metrics import COLUMNS, RATIOS, SHORT_SLACK, mean_row
from benchmarks.plots import plot_ablations, plot_answers, plot_load

KINDS = ("independent", "mixed", "chain")
LOADS = {"load": "Under load", "load_paced": "Under load, several decoders that sleep"}
"""Results of `benchmarks.load`, and their titles."""
PROTOCOL = """\
Everything is a ratio within one run, against sequential decoding on the same engine, model and
machine; medians over questions. The *bound* is a list schedule of the same graph with this
machine's step times by width and prefill rate, measured in the same run, and nothing else: no
queue, no message, no thread (`benchmarks/answering/bound.py`). *Plan decoded*: the plan is written
token by token as ever, only its words are given, so that every run does the same work. Every
question comes from a tenant of its own: no answer is served from another's cache."""


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS)
    folder: Path = parser.parse_args().folder
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    if not found:
        parser.error(f"there are no JSON files in {folder}; run `make bench`")
    (folder / "REPORT.md").write_text(report(found), encoding="utf-8")
    if "answers" in found:
        plot_answers(found["answers"]["rows"], folder)
    if "ablations" in found:
        plot_ablations(found["ablations"]["metrics"], folder)
    for name in LOADS:
        if name in found:
            plot_load(found[name]["rows"], folder, name)
    print(folder / "REPORT.md")


def report(found: dict[str, Any]) -> str:
    """The report of the benchmarks that there are, as Markdown."""
    sections: dict[str, Callable[[dict[str, Any]], str]] = {
        "answers": answers,
        "ablations": ablations,
        "worst_case": worst_case,
        **{name: partial(load, name) for name in LOADS},
        "peers": peers,
        "engine": engine,
        "engines": engines,
        "gpu": gpu,
        "routing": routing,
        "scaleout": scaleout,
        "cluster": cluster,
        "startup": startup,
        "clients": clients,
        "limits": limits,
    }
    parts = ["# Measured", PROTOCOL]
    for name, section in sections.items():
        if name in found:
            parts.append(section(found[name]))
    return "\n\n".join(parts) + "\n"


def heading(title: str, one: dict[str, Any]) -> str:
    """A section's title, the command that makes it, and where it was made."""
    machine = one["machine"]
    quick = " --quick" if one["settings"].get("quick") else ""
    name = one["benchmark"]
    where = machine["gpu"] or machine["cpu"]
    return (
        f"## {title}\n\n"
        f"`python -m benchmarks.{name}{quick} --json benchmarks/results/{name}.json`: "
        f"{one['model']}, {where}, {machine['cores']} cores, torch {machine['torch']}."
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers get three digits."""
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{median(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


def answers(one: dict[str, Any]) -> str:
    """Answers: by way and kind, throughput, free questions, and where the time goes."""
    rows, metrics = one["rows"], one["metrics"]
    fixed = []
    for via in ("runtime", "http"):
        for way in dict.fromkeys(row["way"] for row in rows if row["via"] == via):
            for kind in KINDS:
                found = _select(rows, via, way, kind)
                if found:
                    base = {row["question"]: row for row in _select(rows, via, "sequential", kind)}
                    ratios = [base[r["question"]]["latency_s"] / r["latency_s"] for r in found]
                    fixed.append(
                        (
                            via,
                            way,
                            kind,
                            median(row["latency_s"] for row in found),
                            _spread(ratios),
                            median(row["bound_share"] for row in found),
                            median(row["first_text_s"] for row in found),
                            median(row["parallelism"] for row in found),
                            median(row["planning_share"] for row in found),
                        )
                    )
    shown = [
        heading("Answers", one),
        "![latency by question, and throughput](answers.svg)",
        table(
            (
                *("via", "way", "kind", "latency s", "speed-up, median (min to max)"),
                *("share of bound", "first text s", "parallelism", "planning share"),
            ),
            fixed,
        ),
        "*Parallelism*: decoding time of all parts over the answer's; *planning share*: of the "
        "answer's time, what passes before the first part starts.",
        table(
            ("questions at a time, over HTTP", "plato / sequential, answer tokens per second"),
            [
                (name.rpartition("_")[2], metrics[name])
                for name in metrics
                if name.startswith("throughput_ratio_")
            ],
        ),
        _free(rows),
        "### Where an answer's time goes",
        _profile(rows),
    ]
    return "\n\n".join(part for part in shown if part)


def _select(
    rows: Sequence[dict[str, Any]], via: str, way: str, kind: str | None = None
) -> list[dict[str, Any]]:
    return [
        row
        for row in rows
        if (row["via"], row["way"], row["concurrency"]) == (via, way, 1)
        and kind in (None, row["kind"])
    ]


def _free(rows: Sequence[dict[str, Any]]) -> str:
    free = [row for row in rows if row["via"] == "free"]
    if not free:
        return ""
    lines = []
    for way in dict.fromkeys(row["way"] for row in free):
        found = [row for row in free if row["way"] == way]
        planned = sum(row["mode"] != "sequential" for row in found)
        lines.append(
            (
                way,
                f"{planned} of {len(found)}",
                *(
                    median(row[column] for row in found)
                    for column in ("tokens", "latency_s", "first_text_s", "tokens_per_s")
                ),
            )
        )
    return (
        "Free questions (the model's own plans and lengths, over HTTP, one at a time; the answers "
        "differ in length, so compare tokens per second):\n\n"
        + table(("way", "planned", "tokens", "latency s", "first text s", "tokens/s"), lines)
    )


def _profile(rows: Sequence[dict[str, Any]]) -> str:
    """Means over the questions of the workload, plan decoded, over HTTP."""
    inside = {row["question"]: row for row in _select(rows, "runtime", "plato")}
    outside = {row["question"]: row for row in _select(rows, "http", "plato")}
    both = [(inside[question], outside[question]) for question in outside if question in inside]
    total = fmean(http["latency_s"] for _, http in both)
    ideal = fmean(row["bound_s"] for row, _ in both)
    planning = fmean(row["planning_share"] * row["latency_s"] for row, _ in both)
    lines = [
        ("the engine's steps and prompts, as far as they must be (the bound)", ideal),
        (
            "engine thread, sampling, scheduling",
            fmean(r["latency_s"] - r["bound_s"] for r, _ in both),
        ),
        ("Ray, HTTP, other processes", fmean(h["latency_s"] - r["latency_s"] for r, h in both)),
        ("in all", total),
        ("of it before the first part starts (planning prompt, first line)", planning),
    ]
    return table(
        ("seconds of an answer, mean", "s", "share"), [(n, s, s / total) for n, s in lines]
    )


def ablations(one: dict[str, Any]) -> str:
    """Ablations, and the paper's figures next to ours."""
    metrics = one["metrics"]
    effects = [
        (name, metrics[f"{name}_gain"], *_interval(metrics, f"{name}_gain"))
        for name in ("pipelining", "forced_tokens", "priority", "reuse")
    ]
    paper = [
        (
            "throughput against sequential",
            "+68 % (A100, Llama-3-8B-like models, their mix of questions)",
            "answers: `throughput_ratio_1` to `_16`; one question at a time is the comparable one",
        ),
        (
            "pipelining of plan and parts",
            "+29 % throughput (their plan takes a larger share of the answer)",
            f"{metrics['pipelining_gain'] - 1:+.0%} latency, {metrics['pipeline_gain_share']:.2f} "
            "of what the bound allows; first text after "
            f"{metrics['first_text_pipeline_ratio']:.2f} of the time",
        ),
        (
            "overhead of prompts",
            "-75 % (KV of the shared prefix)",
            ", ".join(
                f"-{metrics[f'prefill_cut_{length}']:.0%} at {length:,} tokens"
                for length in (32, 512, 4096)
            ),
        ),
    ]
    return "\n\n".join(
        (
            heading("What each part brings", one),
            "![latency without each part](ablations.svg)",
            table(("without", "latency over that with it", "95 % from", "to"), effects),
            table(
                ("question", "prompt tokens cut by reuse", "latency without reuse over with"),
                [
                    (
                        f"{length:,} tokens",
                        metrics[f"prefill_cut_{length}"],
                        metrics[f"reuse_gain_{length}"],
                    )
                    for length in (32, 512, 4096)
                ],
            ),
            table(
                ("sequences side by side, at the most", "latency over that of 16"),
                [(width, metrics[f"width_{width}_slowdown"]) for width in (1, 2, 4, 8)],
            ),
            f"Of cacheable prompt tokens {metrics['cached_over_cacheable']:.3f} were cached.",
            table(("", "the paper (arXiv 2402.12280)", "here"), paper),
        )
    )


def _interval(metrics: dict[str, Any], name: str) -> tuple[float, float]:
    low, high = metrics[f"{name}_interval"]
    return low, high


def worst_case(one: dict[str, Any]) -> str:
    """Worst cases."""
    metrics = one["metrics"]
    return "\n\n".join(
        (
            heading("Where Plato cannot help", one),
            table(
                ("case", "figure"),
                [
                    ("a chain: latency over sequential, less 1", metrics["chain_cost"]),
                    (
                        "a question that is not split: the same without the decision",
                        metrics["unsplit_cost"],
                    ),
                    ("the decision, s", metrics["decision_s"]),
                    (
                        "sixteen runs at a time, all planned: throughput over sequential",
                        metrics["full_throughput_ratio"],
                    ),
                ],
            ),
            "On a full machine `auto` does not plan: it answers sequentially, and says so.",
        )
    )


def load(name: str, one: dict[str, Any]) -> str:
    """Under load: ratios by rate, and means by rate and way."""
    rows, metrics, settings = one["rows"], one["metrics"], one["settings"]
    rates = sorted({row["rate"] for row in rows})
    ratios = [
        (f"{rate:g}", *(_with_interval(metrics, ratio, f"{rate:g}") for ratio in RATIOS))
        for rate in rates
    ]
    means = [
        (f"{rate:g}", way, *("" if mean is None else mean for mean in found.values()))
        for rate in rates
        for way in dict.fromkeys(row["way"] for row in rows)
        for found in [mean_row(rows, rate, way)]
    ]
    return "\n\n".join(
        (
            heading(LOADS[name], one),
            f"![throughput, goodput and latency by rate]({name}.svg)",
            "Questions arrive as a Poisson process at a rate relative to the capacity; "
            f"{1 - settings['long_share']:.0%} are short and always answered sequentially. The "
            "same questions at the same times for every way. *Goodput x*: answers a second with "
            f"their first text within {settings['first_text_target_s']:g} s, and for each further "
            f"token at most x times what a sequential answer takes alone "
            f"({settings['token_alone_s'] * 1e3:.3g} ms), short answers {SHORT_SLACK:g} times. "
            "Tokens a second are those of the last three quarters of the window in which "
            f"questions arrive. Means over {settings['seeds']} seeds, and 95 % intervals.",
            table(("rate", *(ratio.replace("_", " ") for ratio in RATIOS)), ratios),
            table(("rate", "way", *(column.replace("_", " ") for column in COLUMNS)), means),
            f"The thread that asks took at most {metrics['cpu_share']:.0%} of a processor, in "
            "process with the scheduler's part, and was late by at most "
            f"{metrics['late_p99_s'] * 1e3:.0f} ms (p99).",
        )
    )


def _with_interval(metrics: dict[str, Any], name: str, key: str) -> str:
    if metrics[name][key] is None:
        return ""
    low, high = ("∞" if end is None else f"{end:.2f}" for end in metrics[f"{name}_interval"][key])
    return f"{metrics[name][key]:.2f} ({low} to {high})"


def peers(one: dict[str, Any]) -> str:
    """Other servers."""
    rows = []
    for server in dict.fromkeys(row["server"] for row in one["rows"]):
        found = [row for row in one["rows"] if row["server"] == server]
        rows.append(
            (
                server,
                *(
                    median(row[column] for row in found)
                    for column in ("tokens", "latency_s", "first_text_s", "tokens_per_s")
                ),
            )
        )
    return "\n\n".join(
        (
            heading("What would run here instead", one),
            table(("", "tokens", "latency s", "first text s", "tokens/s"), rows),
        )
    )


def engine(one: dict[str, Any]) -> str:
    """The engine's figures."""
    return _figures("The engine", one, "![tokens per second by width](engine.svg)")


def engines(one: dict[str, Any]) -> str:
    """In front of the engines of others."""
    rows, metrics = one["rows"], one["metrics"]
    by_part = {(row["part"], row["engine"]): row for row in rows}
    figures = []
    for name in dict.fromkeys(row["engine"] for row in rows):
        tests = by_part.get(("conformance", name))
        direct = by_part.get(("direct", name), {})
        figures.append(
            (
                name,
                f"{tests['passed']} passed, {tests['failed']} failed" if tests else "",
                metrics.get(f"speedup_{name}", ""),
                direct.get("width_gain", ""),
                direct.get("sibling_prefill_ratio", ""),
            )
        )
    columns = (
        "engine",
        "conformance tests",
        "speed-up over its own endpoint, independent parts",
        "tokens/s of eight sequences over one",
        "prompt tokens computed for eight siblings, over the least possible",
    )
    return "\n\n".join((heading("In front of other engines", one), table(columns, figures)))


def gpu(one: dict[str, Any]) -> str:
    """Steps of a large model on a GPU."""
    return _figures("A model of 8B on a GPU", one)


def routing(one: dict[str, Any]) -> str:
    """Placement policies."""
    metrics = one["metrics"]
    shares, ratios = metrics["cached_share"], metrics["makespan_ratio"]
    return "\n\n".join(
        (
            heading("Placement under cache pressure", one),
            table(
                ("policy", "share of cacheable tokens cached", "makespan over ours"),
                [(name, share, ratios.get(name, 1.0)) for name, share in shares.items()],
            ),
            f"With nothing to reuse: {metrics['nothing_to_reuse_ratio']:.2f} of the best policy's "
            f"time. Predicted reuse is off by {metrics['reuse_prediction_error']:.1%} of the "
            "prompt tokens.",
        )
    )


def scaleout(one: dict[str, Any]) -> str:
    """Scaling out."""
    return _figures("Scaling out, simulated", one, "![throughput by decoders](scaleout.svg)")


def cluster(one: dict[str, Any]) -> str:
    """Scaling out on a cluster."""
    columns = {
        "decoders": "decoders",
        "tokens/s": "tokens_per_s",
        "predicted": "predicted_tokens_per_s",
        "measured over predicted": "of_prediction",
        "first text p50, s": "first_text_p50_s",
        "predicted p50, s": "predicted_first_text_p50_s",
        "latency p50, s": "latency_p50_s",
        "predicted latency, s": "predicted_latency_p50_s",
    }
    rows = [[row[name] for name in columns.values()] for row in one["rows"]]
    return "\n\n".join(
        (
            heading("Scaling out, on a cluster", one),
            "![throughput by decoders](cluster.svg)",
            table(tuple(columns), rows),
        )
    )


def startup(one: dict[str, Any]) -> str:
    """Start and memory of the servers."""
    return _figures("Starting a server", one)


def clients(one: dict[str, Any]) -> str:
    """What each client did."""
    by_client: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in one["rows"]:
        by_client.setdefault((row["client"], row["version"]), []).append(row)
    shown = []
    for client, rows in by_client.items():
        failed = [f"{row['did']}: {row['result']}" for row in rows if row["result"] != "ok"]
        did = ", ".join(row["did"] for row in rows)
        shown.append((*client, did, "; ".join(failed) or "ok"))
    return "\n\n".join(
        (heading("Clients", one), table(("client", "version", "what it did", "result"), shown))
    )


def limits(one: dict[str, Any]) -> str:
    """What a tenant over its limit costs another one."""
    return _figures("A tenant over its limit", one)


def _figures(title: str, one: dict[str, Any], *pictures: str) -> str:
    figures = [(n, v) for n, v in one["metrics"].items() if isinstance(v, int | float)]
    return "\n\n".join((heading(title, one), *pictures, table(("figure", "value"), figures)))


if __name__ == "__main__":
    main()
