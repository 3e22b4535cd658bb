"""Checks of what computes: torch, CUDA, compiler and kernels, the engine, the model."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from plato.cli.doctor.finding import Finding, error, ok, warning
from plato.engine import EngineBusyError, OtherModelError, UpstreamError, losses
from plato.engine.capabilities import BUILT_IN
from plato.engine.errors import KeyRefusedError
from plato.errors import PlatoError
from plato.models.adapter import find_adapter
from plato.settings import UPSTREAM_ENGINE, VLLM_ENGINE, Settings

START_S = 3.0
"""For servers that are away or loading: who looks does not want to wait as a start does."""
ANSWER_S = 10.0
"""For each answer of a server, which may be busy."""


def check_packages(_: Settings) -> Iterator[Finding]:
    """What the extras install."""
    wanted = (("torch", "torch", "the built-in engine"), ("ray", "serve", "serving on Ray"))
    for package, extra, purpose in wanted:
        try:
            found = version(package)
        except PackageNotFoundError:
            yield warning(
                package,
                f"not installed; it is for {purpose}",
                f"pip install 'plato-serve[{extra}]'",
            )
        else:
            yield ok(package, f"{found}, for {purpose}", "nothing to do")


def check_device(settings: Settings) -> Iterator[Finding]:
    """The GPU, if there is one."""
    if find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
        yield ok("CUDA", ", ".join(names), "--decoder-gpus 1 gives each decoder on Ray one")
    elif settings.device == "cuda":
        yield error("CUDA", "torch sees no GPU", "set --device auto, or install a driver")
    elif shutil.which("nvidia-smi"):
        yield warning(
            "CUDA", "there is a driver, but torch sees no GPU", "install a torch with CUDA"
        )
    else:
        yield ok("CUDA", "no GPU; the CPU computes", "nothing to do")


def check_kernels(settings: Settings) -> Iterator[Finding]:
    """The compiler, and the kernels that it has to compile."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        yield warning(
            "compiler", "none, so the CPU computes slowly in float32", "install gcc, or set CC"
        )
        return
    yield ok("compiler", compiler, "CC chooses another")
    if find_spec("torch") is None or settings.engine != "torch":
        return
    # What it logs of a failure is told below.
    logging.getLogger("plato.engine.torch.kernels.build").setLevel(logging.CRITICAL)
    from plato.engine.torch.kernels import has_compiled_kernels

    if has_compiled_kernels():
        yield ok("kernels", "compiled for this CPU", "nothing to do")
    else:
        yield warning("kernels", f"{compiler} cannot compile them", "install a newer gcc")


def check_model(settings: Settings) -> Iterator[Finding]:
    """The model and its adapter."""
    try:
        adapter = find_adapter(settings)
    except PlatoError as problem:
        yield error("adapter", problem.message, "set --adapter none to go without one")
    else:
        found = "none" if adapter is None else str(adapter)
        yield ok("adapter", found, "plato tune makes one for another model")
    if find_spec("huggingface_hub") is None:
        return
    from plato.models.local import find_local

    try:
        folder = find_local(
            settings.model,
            settings.cache_dir,
            settings.model_revision,
            weights=settings.engine != UPSTREAM_ENGINE,
        )
    except PlatoError as problem:
        yield error("model", problem.message, "set --model to another one")
        return
    if folder is None:
        yield warning(
            "model", f"{settings.model} is not here yet", f"plato models pull {settings.model}"
        )
    else:
        yield ok("model", f"{settings.model} in {folder}", f"plato models show {settings.model}")


def check_engine(settings: Settings) -> Iterator[Finding]:
    """The engine, and what it cannot do."""
    if settings.engine == UPSTREAM_ENGINE:
        yield from _check_upstreams(settings)
    elif settings.engine == VLLM_ENGINE and find_spec("vllm") is None:
        yield error("engine", "vllm is not installed", "pip install 'plato-serve[vllm]'")
    elif settings.engine == "torch":
        yield ok("engine", "built in; " + _lost(losses(BUILT_IN)), "see docs/engines.md for others")
    else:
        yield ok("engine", settings.engine, "plato.losses of an answer says what it cannot do")


def _check_upstreams(settings: Settings) -> Iterator[Finding]:
    from plato.assembly import check_upstreams
    from plato.models.local import find_local

    settings = settings.model_copy(
        update={"upstream_start_s": START_S, "node_deadline_s": ANSWER_S}
    )
    try:
        folder = find_local(
            settings.model, settings.cache_dir, settings.model_revision, weights=False
        )
        if folder is None:
            # The check of the model has told it.
            return
        connections = check_upstreams(settings, str(folder))
    except PlatoError as problem:
        yield error("engine", problem.message, _upstream_advice(problem))
        return
    for url, connection in zip(settings.upstreams, connections, strict=True):
        lost = losses(connection.capabilities)
        yield ok("engine", f"{url}: {_lost(lost)}", "docs/engines.md says what can be turned on")


def _upstream_advice(problem: PlatoError) -> str:
    match problem.__cause__:
        case KeyRefusedError():
            return "ask who runs the server for its key"
        case OtherModelError():
            return "give both the same model: --model here, or another model there"
        case EngineBusyError():
            return "wait until it has loaded its model, or look at its log"
        case UpstreamError():
            return "start the server, or correct --upstream of plato serve (PLATO_UPSTREAMS)"
    return "correct the setting; docs/engines.md explains it"


def _lost(clauses: tuple[str, ...]) -> str:
    return "; ".join(clauses) if clauses else "it can do everything"
