"""How vLLM is configured, and what it is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from plato.engine import EngineError, StopConditions
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.vllm import VllmConfig
from plato.engine.vllm.arguments import ROW, engine_arguments, sampling_arguments
from plato.engine.vllm.rows import RowRequest
from tests.engine.helpers import ask

ENDS = frozenset({2, 1})


@pytest.fixture
def config(tiny_folder: str) -> VllmConfig:
    return VllmConfig(tiny_folder, TokenizerConfig.load(tiny_folder))


def adapter(folder: Path, rank: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


def test_memory_is_bounded_as_the_device_wants_it(config: VllmConfig) -> None:
    config = replace(config, kv_budget_bytes=5, gpu_memory_utilization=0.5)
    assert engine_arguments(config, cpu=True)["kv_cache_memory_bytes"] == 5
    assert engine_arguments(config, cpu=False)["gpu_memory_utilization"] == 0.5
    unset = engine_arguments(replace(config, gpu_memory_utilization=None), cpu=False)
    assert not {"kv_cache_memory_bytes", "gpu_memory_utilization", "block_size"} & unset.keys()


def test_several_gpus_are_used_by_child_processes(config: VllmConfig) -> None:
    assert "distributed_executor_backend" not in engine_arguments(config, cpu=False)
    arguments = engine_arguments(replace(config, tensor_parallel_size=2), cpu=False)
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["distributed_executor_backend"] == "mp"


def test_further_options_reach_vllm_unless_plato_depends_on_them(config: VllmConfig) -> None:
    quantized = replace(config, options={"quantization": "fp8"})
    assert engine_arguments(quantized, cpu=False)["quantization"] == "fp8"
    with pytest.raises(EngineError, match="async_scheduling, which Plato sets"):
        engine_arguments(replace(config, options={"async_scheduling": True}), cpu=False)


@pytest.mark.parametrize(("given", "most"), [(8, 8), (12, 16), (512, 512)])
def test_the_rank_of_an_adapter_is_rounded_up(
    config: VllmConfig, tmp_path: Path, given: int, most: int
) -> None:
    arguments = engine_arguments(replace(config, adapter=adapter(tmp_path, given)), cpu=False)
    assert (arguments["enable_lora"], arguments["max_lora_rank"]) == (True, most)


@pytest.mark.parametrize("given", [513, None])
def test_an_adapter_that_vllm_cannot_serve_is_refused(
    config: VllmConfig, tmp_path: Path, given: int | None
) -> None:
    with pytest.raises(EngineError, match="ranks up to 512"):
        engine_arguments(replace(config, adapter=adapter(tmp_path, given)), cpu=False)


def test_int8_is_refused(config: VllmConfig) -> None:
    with pytest.raises(EngineError, match="set dtype to auto"):
        engine_arguments(replace(config, dtype="int8"), cpu=True)


def test_vllm_ends_a_sequence_at_the_same_tokens_and_budget() -> None:
    request = ask((1,), max_tokens=10, emitted=(5, 6), stop=StopConditions())
    arguments = sampling_arguments(request, ENDS)
    assert (arguments["max_tokens"], arguments["stop_token_ids"]) == (8, [1, 2])
    assert RowRequest.unpack(arguments["extra_args"][ROW]).emitted == (5, 6)
    ignored = sampling_arguments(replace(request, stop=StopConditions(end_tokens=False)), ENDS)
    assert ignored["stop_token_ids"] == []


def test_scores_are_asked_for_at_the_first_token() -> None:
    request = ask((1,), score=(7, 7, 8))
    assert sampling_arguments(request, ENDS)["logprob_token_ids"] == [7, 8]
    assert "logprob_token_ids" not in sampling_arguments(replace(request, emitted=(1,)), ENDS)
