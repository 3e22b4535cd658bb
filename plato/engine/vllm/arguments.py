"""The arguments of vLLM's constructors, by configuration and request. Needs no vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plato.engine.errors import EngineError
from plato.engine.fingerprint import ADAPTER_CONFIG
from plato.engine.protocol import GenerateRequest
from plato.engine.vllm.config import VllmConfig
from plato.engine.vllm.rows import RowRequest

PROCESSOR = "plato.engine.vllm.processor:PlatoLogitsProcessor"
ROW = "plato"
"""Name of the packed `RowRequest` in the extra arguments of a request."""
CPU_BLOCK_TOKENS = 32
"""The shortest blocks that vLLM's CPU kernels compute well. Its default, 128, is longer than many
prefixes that parts share."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `max_lora_rank` can be."""


def engine_arguments(config: VllmConfig, *, cpu: bool) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`; `cpu`: whether vLLM is built for CPUs.

    Raises `EngineError` if vLLM cannot be configured like that.
    """
    if config.dtype == "int8":
        raise EngineError(
            "vLLM does not convert weights to int8; set dtype to auto, and for int8 use a model "
            "with quantised weights"
        )
    arguments: dict[str, Any] = {
        "model": config.model_folder,
        "skip_tokenizer_init": True,
        # Requests say how they are sampled and where they end, not the model's folder.
        "generation_config": "vllm",
        "dtype": config.dtype,
        "max_model_len": -1,  # As long as the KV cache allows.
        "max_num_seqs": config.max_sequences,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        # A token is chosen by those before it.
        "async_scheduling": False,
        "logits_processors": [PROCESSOR],
        "logprobs_mode": "processed_logits",
        "disable_log_stats": True,
    }
    if cpu:
        arguments["block_size"] = CPU_BLOCK_TOKENS
        arguments["kv_cache_memory_bytes"] = config.kv_budget_bytes
    elif config.gpu_memory_utilization is not None:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    if config.tensor_parallel_size > 1:
        # Children of this process. In a placement group vLLM would prefer actors, which find that
        # the replica has taken the GPUs.
        arguments["distributed_executor_backend"] = "mp"
    if config.adapter is not None:
        arguments["enable_lora"] = True
        arguments["max_lora_rank"] = _lora_rank(config.adapter)
    if taken := arguments.keys() & config.options.keys():
        raise EngineError(
            f"engine_options has {', '.join(sorted(taken))}, which Plato sets by itself; leave "
            "that out"
        )
    return {**arguments, **config.options}


def sampling_arguments(request: GenerateRequest, end_tokens: frozenset[int]) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`: greedy, since `rows` chooses the tokens."""
    arguments: dict[str, Any] = {
        "temperature": 0.0,
        "max_tokens": request.max_tokens - len(request.emitted),
        "ignore_eos": True,
        "stop_token_ids": sorted(end_tokens) if request.stop.end_tokens else [],
        "detokenize": False,
        "extra_args": {ROW: RowRequest.of(request).pack()},
    }
    if request.score and not request.emitted:
        arguments["logprob_token_ids"] = list(dict.fromkeys(request.score))
    return arguments


def _lora_rank(adapter: Path) -> int:
    """The least `max_lora_rank` for an adapter. Raises `EngineError`."""
    rank = json.loads((adapter / ADAPTER_CONFIG).read_bytes()).get("r")
    for most in LORA_RANKS:
        if isinstance(rank, int) and rank <= most:
            return most
    raise EngineError(
        f"the adapter in {adapter} has rank {rank}; vLLM serves LoRA adapters of ranks up to "
        f"{LORA_RANKS[-1]}"
    )
