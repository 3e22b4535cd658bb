"""A model is computed with its adapter or without, as each prompt says."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from plato.engine import EngineError, GenerateRequest, OtherModelError, Segment, fingerprint
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.attention import Rows
from plato.engine.torch.core import EngineCore
from plato.engine.torch.kernels import has_compiled_kernels
from plato.engine.torch.load import load_model
from tests.engine.conftest import tiny_config
from tests.engine.helpers import ask, collect, generate, run_together, some_tokens

TOKENS = list(some_tokens(20))


@pytest.fixture(scope="module")
def adapter(tiny_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with random weights on all linear layers."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), config)
    tuned.save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(config: TorchEngineConfig) -> torch.Tensor:
    model = load_model(config)
    pool = model.new_pool(len(TOKENS))
    rows = [Rows(pool.allocate(len(TOKENS)), len(TOKENS))]
    return model.forward(pool, TOKENS, rows, list(range(len(TOKENS))))


@torch.inference_mode()
def test_logits_are_those_of_the_adapted_model(adapter: Path, tiny_folder: str) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    before = plain(torch.tensor([TOKENS])).logits[0]
    expected = PeftModel.from_pretrained(plain, adapter)(torch.tensor([TOKENS])).logits[0]
    assert (expected - before).abs().max() > 1
    found = logits(TorchEngineConfig(tiny_folder, adapter=adapter, device="cpu", dtype="float32"))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.skipif(not has_compiled_kernels(), reason="this machine has no C compiler")
def test_packed_weights_of_both_are_kept_apart(
    adapter: Path, tiny_folder: str, tmp_path: Path
) -> None:
    plain = TorchEngineConfig(tiny_folder, str(tmp_path), device="cpu", dtype="int8")
    adapted = TorchEngineConfig(
        tiny_folder, str(tmp_path), adapter=adapter, device="cpu", dtype="int8"
    )
    first = logits(plain), logits(adapted)
    assert (first[0] - first[1]).abs().max() > 1
    assert len(list((tmp_path / "packed").glob("*/*.pt"))) == 2
    for before, config in zip(first, (plain, adapted), strict=True):
        torch.testing.assert_close(logits(config), before)


def made(folder: str, out: Path, **fields: Any) -> Path:
    """An adapter for the model in `folder`."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, init_lora_weights=False, **fields)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(out)
    return out


@pytest.mark.parametrize("changed", [{"num_hidden_layers": 3}, {"intermediate_size": 256}])
def test_an_adapter_of_another_model_is_refused(
    changed: dict[str, int], tiny_folder: str, tmp_path: Path
) -> None:
    config = AutoConfig.from_pretrained(tiny_folder, **changed)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    other = made(str(tmp_path / "model"), tmp_path / "adapter", target_modules="all-linear")
    with pytest.raises(EngineError, match=r"other layers|size mismatch"):
        load_model(TorchEngineConfig(tiny_folder, adapter=other, device="cpu", dtype="float32"))


@pytest.mark.parametrize("end", ["lm_head", "embed_tokens"])
def test_a_change_of_one_end_of_shared_embeddings_is_refused(
    end: str, tiny_model_folder: str, tmp_path: Path
) -> None:
    # PEFT would change both.
    adapter = made(tiny_model_folder, tmp_path, target_modules=[end])
    config = TorchEngineConfig(tiny_model_folder, adapter=adapter, device="cpu", dtype="float32")
    with pytest.raises(EngineError, match="only one end of embeddings that the model shares"):
        load_model(config)


def test_an_adapter_that_matches_nothing_is_refused(tiny_folder: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 4, "target_modules": ["query"]}'
    )
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    config = TorchEngineConfig(tiny_folder, adapter=tmp_path, device="cpu", dtype="float32")
    with pytest.raises(EngineError, match="cannot be merged into this model"):
        load_model(config)


def test_packed_weights_of_a_removed_adapter_are_removed(
    adapter: Path, tiny_folder: str, tmp_path: Path
) -> None:
    if not has_compiled_kernels():
        pytest.skip("this machine has no C compiler")
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    cache = tmp_path / "cache"

    def load(adapter: Path | None) -> None:
        load_model(
            TorchEngineConfig(tiny_folder, str(cache), adapter=adapter, device="cpu", dtype="int8")
        )

    load(copy)
    shutil.rmtree(copy)
    load(None)
    assert len(list((cache / "packed").glob("*/*.pt"))) == 1


@pytest.fixture
def core(adapter: Path, tiny_folder: str) -> EngineCore:
    """With an adapter and without."""
    config = TorchEngineConfig(
        tiny_folder, adapter=adapter, device="cpu", dtype="float32", kv_budget_bytes=1 << 20
    )
    base = load_model(replace(config, adapter=None))
    return EngineCore(load_model(config), config, "epoch", base=base)


def asked(model: str, tenant: str = "") -> GenerateRequest:
    request = ask(TOKENS, max_tokens=6)
    return replace(request, prompt=replace(request.prompt, fingerprint=model, tenant=tenant))


@pytest.fixture
def fingerprints(adapter: Path, tiny_folder: str) -> tuple[str, str]:
    """With the adapter, and without."""
    return fingerprint(tiny_folder, "float32", adapter), fingerprint(tiny_folder, "float32")


def test_equal_tokens_have_a_kv_for_each(
    core: EngineCore, adapter: Path, tiny_folder: str, fingerprints: tuple[str, str]
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    expected = {fingerprints[1]: generate(plain, TOKENS, 6)}
    expected[fingerprints[0]] = generate(PeftModel.from_pretrained(plain, adapter), TOKENS, 6)
    expected[""] = expected[fingerprints[0]]
    assert len(set(expected.values())) == 2
    # In one step, and one after the other.
    for models in ((*fingerprints, ""), *((model,) for model in expected)):
        streams = run_together(core, [asked(model) for model in models])
        assert [stream.tokens for stream in streams] == [expected[model] for model in models]
        core.check_integrity()
    for model in fingerprints:
        assert core.cached_prefix(asked(model).prompt) == len(TOKENS)
        assert core.cached_prefix(asked(model, "other").prompt) == 0
    assert core.cached_prefix(asked(fingerprints[0]).prompt.extended(Segment(expected[""]))) > 20
    assert core.cached_prefix(asked(fingerprints[1]).prompt.extended(Segment(expected[""]))) == 20


def test_kv_of_one_is_none_of_the_other(core: EngineCore, fingerprints: tuple[str, str]) -> None:
    tuned, base = (asked(model).prompt for model in fingerprints)
    run_together(core, [asked(fingerprints[0])])
    piece = core.export_kv(tuned, 0)
    assert piece is not None
    assert core.export_kv(base, 0) is None
    for other in (base, replace(base, fingerprint="another")):
        assert core.import_kv(other, piece) == 0
    core.check_integrity()


async def test_an_engine_loads_both(
    adapter: Path, tiny_folder: str, fingerprints: tuple[str, str]
) -> None:
    engine = TorchEngine(replace(tiny_config(tiny_folder), adapter=adapter))
    try:
        found = {(await collect(engine, asked(model))).tokens for model in fingerprints}
        assert len(found) == 2
        with pytest.raises(OtherModelError, match=" and ".join(fingerprints)):
            await collect(engine, asked("another"))
    finally:
        await engine.close()
