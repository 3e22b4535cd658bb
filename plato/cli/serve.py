"""`plato serve`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from plato.api.access.keys import new_key
from plato.cli.errors import UsageError
from plato.cli.setting_flags import flag_of, given_flags, with_settings
from plato.cli.setting_sources import gather_settings
from plato.interrupts import abrupt_interrupts
from plato.server.options import ServeOptions, parse_assignments, secured

NEW_KEY = "new"
TENANT = "default"
"""The tenant of `--api-key`."""


@with_settings
def serve(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [SETTING=VALUE]...",
            help="The model, as for --model; settings can also be written as SETTING=VALUE.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Serve in this process, without Ray.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of settings: `max_nodes = 4`. Variables and flags take precedence."
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The key that clients have to send; `new`: one that is made and shown. Other "
            "users of this machine see a key in the list of processes: for them, and for several "
            "keys, --api-keys-file has hashes."
        ),
    ] = None,
    allow_anonymous: Annotated[
        bool,
        typer.Option(
            "--allow-anonymous",
            help="Without API keys, answer everybody who reaches a --host other than loopback.",
        ),
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser once it is ready.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the Prometheus metrics; default: a free one. With --embedded they are at "
            "/metrics."
        ),
    ] = None,
    open_metrics: Annotated[
        bool,
        typer.Option(
            "--open-metrics",
            help="Let other machines reach the metrics, and Ray's own ports, which need a token.",
        ),
    ] = False,
    **flags: Any,
) -> None:
    """Start a server on this machine.

    Every setting is a flag, a variable in the environment (`--max-nodes`: `PLATO_MAX_NODES`) and a
    line in a file (`--config`); times are in seconds. `plato config show` tells the values, and
    where they come from.
    """
    if embedded and (metrics_port is not None or open_metrics):
        raise UsageError(
            "--metrics-port and --open-metrics are for Ray; with --embedded, metrics are at "
            "/metrics"
        )
    key = new_key() if api_key == NEW_KEY else api_key
    given = _merged(given_flags(flags), arguments or [], key)
    settings = gather_settings(given, config).settings
    options = ServeOptions(
        secured(settings, host, allow_anonymous=allow_anonymous),
        host,
        port,
        metrics_port,
        open_metrics,
        open_page,
        key,
    )
    raise typer.Exit(run(options, embedded=embedded))


def run(options: ServeOptions, *, embedded: bool) -> int:
    """Serve until a signal; returns the exit status.

    Raises `SettingsError` if the port is taken.
    """
    # Before anything is loaded: a port in use is told at once.
    listener = options.bind()
    if embedded:
        with abrupt_interrupts():
            from plato.server.embedded import main
        return main(options, listener)
    # Serve's proxies open it themselves.
    listener.close()
    if find_spec("ray") is None:
        raise UsageError(
            "Ray is not installed; run: pip install 'plato-serve[serve]', or add --embedded"
        )
    # By name: only `deployments` depends on Ray; this package never imports it.
    status: int = import_module("deployments.server").main(options)
    return status


def _merged(flags: dict[str, Any], arguments: list[str], key: str | None) -> dict[str, Any]:
    """Flags and arguments as settings. Raises `UsageError` if one is given twice."""
    models = [each for each in arguments if "=" not in each]
    if len(models) > 1:
        raise UsageError(
            f"'{models[1]}' is not a setting; write SETTING=VALUE, and one model at most"
        )
    others = parse_assignments(each for each in arguments if "=" in each)
    if key is not None:
        others["api_keys"] = f"{TENANT}={key}"
    if models:
        if "model" in others:
            raise UsageError(f"the model is given as {models[0]} and as model=...; keep one")
        others["model"] = models[0]
    for name in flags.keys() & others.keys():
        raise UsageError(f"{name} is given twice, once as {flag_of(name)}; keep one of them")
    return {**flags, **others}
