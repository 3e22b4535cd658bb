"""`plato serve --embedded`: the API over a runtime in this process."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from plato.api.app import new_app
from plato.api.drain import Drain
from plato.api.passthrough import Upstreams
from plato.assembly import open_store, public_prompts
from plato.engine.prefill import prefill_public
from plato.logs import configure_logs
from plato.metrics import Role, metrics_of
from plato.metrics.recording import EngineSampler
from plato.metrics.sampling import sample
from plato.models.adapter import ModelFiles
from plato.runtime import Runtime
from plato.server.connections import bounded_protocol, raise_file_limit
from plato.server.options import SECOND_S, ServeOptions, run_server, stop_signals
from plato.server.prometheus import PrometheusMetrics
from plato.server.stages import Stages
from plato.tasks import end_task

SERVICE_METRICS = {
    metric for role in Role if role is not Role.DECODER for metric in metrics_of(role)
}


CLOSE_S = 2
"""Time for connections to end after the last answer."""


class _HttpServer(uvicorn.Server):
    """A server that leaves signals alone: answers end before it stops to listen."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn."""
        yield


def main(options: ServeOptions, listener: socket.socket) -> int:
    """Serve on `listener` until a signal; returns the exit status."""
    configure_logs(options.settings.log_level)
    raise_file_limit()

    def run() -> None:
        with listener:
            asyncio.run(serve(options, listener))

    return run_server(run)


async def serve(options: ServeOptions, listener: socket.socket) -> None:
    """Load the model, and serve on `listener` until a signal."""
    settings, metrics = options.settings, PrometheusMetrics()
    recorder = metrics.recorder("runtime", SERVICE_METRICS)
    with Stages() as stages:
        stages(f"looking for {settings.model}")
        files = await asyncio.to_thread(ModelFiles.resolve, settings, stages.progress)
        store = await open_store(settings, files.fingerprint(settings.dtype))
        stages(f"loading {settings.model_name}")
        opened = await Runtime.open(settings, store, recorder)
    async with opened as runtime:
        # The store may have runs of a server that has died.
        runtime.scheduler.start()
        samplers = [*runtime.samplers(recorder)]
        for name, engine in runtime.engines.items():
            of_engine = metrics.recorder(name, metrics_of(Role.DECODER))
            samplers.append(EngineSampler(of_engine, engine.stats))
        prompts = public_prompts(runtime.tools)
        tasks = [
            asyncio.create_task(sample(recorder, *samplers), name="sample-metrics"),
            *(
                asyncio.create_task(
                    prefill_public(engine, prompts, tenants=settings.protected),
                    name=f"prefill-{name}",
                )
                for name, engine in runtime.engines.items()
            ),
        ]
        drain = Drain()
        upstreams = Upstreams.of(settings)
        app = new_app(runtime.service, settings, recorder, drain, upstreams, runtime.tracing)
        app.add_route("/metrics", metrics.show, methods=["GET"])
        config = uvicorn.Config(
            app,
            http=bounded_protocol(settings.write_deadline_s),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=CLOSE_S,
        )
        listener.listen()
        stages.ready(options, f"{options.url}/metrics")
        try:
            server = _HttpServer(config)
            stopping = asyncio.create_task(_stop(drain, settings.drain_s, server), name="stop")
            tasks.append(stopping)
            await server.serve(sockets=[listener])
        finally:
            await runtime.scheduler.drain()
            for task in tasks:
                await end_task(task)
            await upstreams.close()


async def _stop(drain: Drain, drain_s: float, server: uvicorn.Server) -> None:
    """Wait for a signal, let answers end, and stop the server. At a second SIGINT, stop at once."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    told_at = 0.0

    def tell(number: int) -> None:
        nonlocal told_at
        if not told.is_set():
            told_at = loop.time()
            told.set()
        elif number == signal.SIGINT and loop.time() > told_at + SECOND_S:
            drain.cut_off()

    for number in stop_signals():
        loop.add_signal_handler(number, tell, number)
    await told.wait()
    await drain.finish(drain_s)
    server.should_exit = True
