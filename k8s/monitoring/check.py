"""Checks that every expression of the dashboard and the alert rules has data on a real server.

    python k8s/monitoring/check.py [--prometheus FILE] [--promtool FILE] [--seconds 60]
        [--write FILE] [key=value ...]

Starts `plato serve` and a Prometheus that scrapes it, generates load, and queries Prometheus for
every expression. Exits with 1 if one of them has no data, or `promtool` rejects the rules. On
Debian and Ubuntu, `prometheus` and `promtool` are in the package `prometheus`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

HERE = Path(__file__).parent
RULES = HERE / "alerts.yaml"
RULES_TEST = HERE / "alerts-test.yaml"
DASHBOARD = HERE / "dashboard.json"

SETTINGS = {
    "decoders": "2",
    "decoder_cpus": "0.5",
    "kv_budget_mb": "256",
    "node_max_tokens": "48",
    "sequential_max_tokens": "96",
}
"""Settings of the server, unless overridden on the command line."""
CLIENTS = 4
START_DEADLINE_S = 180.0
SETTLE_S = 25.0
"""Ray exports values every ten seconds, and Prometheus scrapes every five."""
SCRAPE_S = 5

LONG = "Here is report {} that I have to sum up. " + "The harvest was good and prices fell. " * 60
CROWD = 8
"""Clients that ask the same long question at once while one decoder has it cached: the others
import its KV."""
WIDE = [{"title": f"View {letter}", "max_tokens": 24} for letter in "ABCD"]
REQUESTS: tuple[dict[str, Any], ...] = (
    {"messages": "What should I know about trains?", "plato": {"mode": "plato"}},
    {"messages": "How does a garden change over a year?", "plato": {"mode": "skeleton"}},
    {"messages": "What is rain?", "plato": {"mode": "sequential"}},
    {"messages": "How do I learn to swim?", "plato": {}},
    {"messages": "Write a poem about snow.", "plato": {}},
    {"messages": "Tell me of four views.", "plato": {"mode": "plato", "plan": WIDE}},
    {"messages": "What is fog?", "plato": {"mode": "nonsense"}},
)
"""Requests of the clients: every mode, and an invalid one."""


@dataclass(frozen=True)
class Expression:
    """A PromQL expression and its source."""

    where: str
    text: str

    @property
    def query(self) -> str:
        """The expression as a query that has data whether or not an alert fires."""
        text = self.text.replace("$__rate_interval", "1m").replace("$application", ".*")
        if inner := re.fullmatch(r"absent\((.*)\)", text):
            # Has data exactly if the alert does not fire.
            return inner[1]
        # With `bool`, a comparison returns every series instead of filtering.
        return re.sub(r" ([<>]=?|[!=]=) ", r" \1 bool ", text)


def dashboard_expressions(dashboard: dict[str, Any]) -> Iterator[Expression]:
    """The expressions of the panels."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield Expression(f"{panel['title']}: {target['legendFormat']}", target["expr"])


def rule_expressions(rules: dict[str, Any]) -> Iterator[Expression]:
    """The expressions of the rules."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield Expression(rule["alert"], rule["expr"])


def expressions() -> tuple[Expression, ...]:
    """All expressions."""
    return (
        *dashboard_expressions(json.loads(DASHBOARD.read_text())),
        *rule_expressions(yaml.safe_load(RULES.read_text())),
    )


def free_port() -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        return httpx.get(url, timeout=6).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def running(command: list[str], ready: str, log: Path) -> Iterator[None]:
    """Run a process for the duration of the context, once `ready` answers."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while not answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def put_load(url: str, seconds: float) -> dict[str, int]:
    """Send requests from several clients; returns the number of responses by status."""
    until = time.monotonic() + seconds
    model = httpx.get(f"{url}/v1/models", timeout=10).json()["data"][0]["id"]
    statuses: list[str] = []

    def post(messages: str, max_tokens: int, plato: dict[str, Any]) -> None:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": messages}],
            "max_tokens": max_tokens,
            "plato": plato,
        }
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)
        statuses.append(str(answer.status_code))

    def client(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            asked = chance.choice(REQUESTS)
            post(asked["messages"], 160, asked["plato"])

    def crowd() -> None:
        for number in itertools.count():
            if time.monotonic() >= until:
                return
            question, options = LONG.format(number), {"mode": "sequential"}
            post(question, 1, options)
            time.sleep(1)
            with ThreadPoolExecutor(CROWD) as threads:
                for _ in range(CROWD):
                    threads.submit(post, question, 16, options)

    with ThreadPoolExecutor(CLIENTS + 1) as threads:
        work = [threads.submit(client, number) for number in range(CLIENTS)]
        for done in [*work, threads.submit(crowd)]:
            done.result()
    return dict(Counter(statuses))


def ask(prometheus: str, query: str) -> list[float]:
    """The values of a query, one per series."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=30).json()
    if answer["status"] != "success":
        raise SystemExit(f"{query}: {answer['error']}")
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def check(prometheus: str) -> list[dict[str, Any]]:
    """Query every expression."""
    rows = []
    for expression in expressions():
        values = ask(prometheus, expression.query)
        numbers = [value for value in values if not math.isnan(value)]
        rows.append(
            {
                "where": expression.where,
                "expression": expression.text,
                "series": len(values),
                "numbers": len(numbers),
                "highest": max(numbers, default=None),
            }
        )
    return rows


def configuration(metrics_port: int) -> dict[str, Any]:
    """The configuration of Prometheus."""
    target = {"targets": [f"127.0.0.1:{metrics_port}"]}
    return {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(RULES.resolve())],
        "scrape_configs": [{"job_name": "plato", "static_configs": [target]}],
    }


def main() -> int:
    """Check, print the results, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", default="prometheus", help="the program")
    parser.add_argument("--promtool", default="promtool", help="the program")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the load")
    parser.add_argument("--write", type=Path, metavar="FILE", help="save the results as JSON")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the server")
    options = parser.parse_args()
    for program in (options.prometheus, options.promtool):
        if shutil.which(program) is None:
            parser.error(f"{program} was not found; on Debian: apt-get install prometheus")
    subprocess.run([options.promtool, "check", "rules", str(RULES)], check=True)
    subprocess.run([options.promtool, "test", "rules", str(RULES_TEST)], check=True)

    settings = SETTINGS | dict(item.split("=", 1) for item in options.settings)
    server, metrics, web = free_port(), free_port(), free_port()
    url, prometheus = f"http://127.0.0.1:{server}", f"http://127.0.0.1:{web}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plato-check-")))
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(configuration(metrics)))
        subprocess.run([options.promtool, "check", "config", str(config)], check=True)
        plato = [sys.executable, "-m", "deployments", "--port", str(server)]
        plato += ["--metrics-port", str(metrics), *(f"{k}={v}" for k, v in settings.items())]
        stack.enter_context(running(plato, f"{url}/readyz", folder / "plato.log"))
        scraper = [
            options.prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/db",
        ]
        scraper += [f"--web.listen-address=127.0.0.1:{web}"]
        stack.enter_context(running(scraper, f"{prometheus}/-/ready", folder / "prometheus.log"))
        print(f"load for {options.seconds:g} s from {CLIENTS} clients")
        statuses = put_load(url, options.seconds)
        time.sleep(SETTLE_S)
        rows = check(prometheus)
        rules = httpx.get(f"{prometheus}/api/v1/rules", timeout=10).json()["data"]["groups"]
        scrape_s = max(ask(prometheus, "scrape_duration_seconds"))
        samples = int(max(ask(prometheus, "scrape_samples_scraped")))
        ours = int(sum(ask(prometheus, 'count({__name__=~"ray_plato_.*"})')))
    broken = [rule for group in rules for rule in group["rules"] if rule["health"] != "ok"]
    fires = [
        rule["name"] for group in rules for rule in group["rules"] if rule["state"] != "inactive"
    ]
    for row in rows:
        highest = "no data" if row["highest"] is None else f"{row['highest']:.4g}"
        print(f"{row['series']:4d} series, highest {highest:>10}  {row['where']}")
    missing = [row for row in rows if row["highest"] is None]
    print(f"answers by status: {statuses}")
    print(f"a scrape has {samples} samples, {ours} of them ours, and takes {scrape_s:.3f} s")
    print(f"alerts pending or firing: {', '.join(fires) or 'none'}")
    print(f"{len(rows)} expressions, {len(missing)} without data, {len(broken)} broken rules")
    if options.write is not None:
        seen = {"statuses": statuses, "samples": samples, "ours": ours, "rows": rows}
        options.write.write_text(json.dumps(seen, indent=1) + "\n")
    return 1 if missing or broken else 0


if __name__ == "__main__":
    sys.exit(main())
