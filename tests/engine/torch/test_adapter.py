"""A model is computed with its adapter or without, as each prompt says."""

from __future__ import annotations

import ctypes
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from plato.engine import EngineError, GenerateRequest, OtherModelError, Segment, fingerprint
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.attention import Rows
from plato.engine.torch.core import EngineCore
from plato.engine.torch.kernels import NativeKernels, has_compiled_kernels
from plato.engine.torch.kernels.build import compile_kernels
from plato.engine.torch.load import load_model
from plato.engine.torch.model import LanguageModel
from plato.engine.torch.packed import PackedModel
from tests.engine.conftest import TINY, tiny_config
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


@pytest.fixture(scope="module")
def biased_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model with biases."""
    folder = tmp_path_factory.mktemp("biased")
    config = LlamaConfig(vocab_size=49_152, attention_bias=True, mlp_bias=True, **TINY)
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@torch.inference_mode()
def logits(config: TorchEngineConfig) -> list[torch.Tensor]:
    """Without the adapter and, if there is one, with it."""
    model = load_model(config)
    pool = model.new_pool(len(TOKENS))
    slots, wanted = pool.allocate(len(TOKENS)), list(range(len(TOKENS)))
    kinds = (False,) if config.adapter is None else (False, True)
    return [model.forward(pool, TOKENS, [Rows(slots, len(TOKENS), a)], wanted) for a in kinds]


def made(folder: str, out: Path, **fields: Any) -> Path:
    """An adapter for the model in `folder`."""
    torch.manual_seed(1)
    config = LoraConfig(**{"r": 4, "init_lora_weights": False, **fields})
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    for name, parameter in tuned.named_parameters():
        if "bias" in name and parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(out)
    return out


def test_operators_are_spared_the_warnings_of_libraries(tiny_folder: str, adapter: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        load_model(replace(tiny_config(tiny_folder), adapter=adapter))


def own_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a family whose layers we do not replace."""
    monkeypatch.setattr("plato.engine.torch.transformers_model.can_replace", lambda *_: False)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"target_modules": ["q_proj", "v_proj", "down_proj"]},
        {"rank_pattern": {"k_proj": 7, "gate_proj": 1}, "alpha_pattern": {"v_proj": 3}},
        {"use_rslora": True, "lora_alpha": 5},
        {"lora_bias": True},
        {"target_modules": ["up_proj"], "bias": "all"},
    ],
    ids=["all linears", "some linears", "patterns", "rslora", "bias of B", "bias of the model"],
)
@pytest.mark.parametrize("layers", ["ours", "of transformers"])
def test_logits_are_those_of_peft(
    fields: dict[str, Any],
    layers: str,
    biased_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = made(biased_folder, tmp_path, **{"target_modules": "all-linear", **fields})
    expected = []
    with torch.inference_mode():
        plain = AutoModelForCausalLM.from_pretrained(biased_folder)
        expected.append(plain(torch.tensor([TOKENS])).logits[0])
        tuned = PeftModel.from_pretrained(plain, adapter).merge_and_unload()
        expected.append(tuned(torch.tensor([TOKENS])).logits[0])
    assert (expected[0] - expected[1]).abs().max() > 0.3
    if layers == "of transformers":
        own_layers(monkeypatch)
    config = TorchEngineConfig(biased_folder, adapter=adapter, device="cpu", dtype="float32")
    torch.testing.assert_close(logits(config), expected, atol=2e-3, rtol=1e-3)


@torch.inference_mode()
def in_company(
    model: LanguageModel, sequences: list[int], *, adapt: bool = True
) -> list[torch.Tensor]:
    """Logits of sequences that are computed together in three steps, with one token or several.

    Odd numbers are computed with the adapter, unless `adapt` is false: then no token is, in batches
    of the same shape.
    """
    pool = model.new_pool(len(TOKENS) * len(sequences))
    slots = [pool.allocate(len(TOKENS)) for _ in sequences]
    found: list[list[torch.Tensor]] = [[] for _ in sequences]
    cuts = [(0, 12, 13 if number % 4 < 2 else 16, 17) for number in sequences]
    for step in range(3):
        rows = []
        for index, number in enumerate(sequences):
            start, stop = cuts[index][step : step + 2]
            tokens = [(token + number) % 1000 for token in TOKENS[start:stop]]
            rows.append((Rows(slots[index][:stop], stop - start, number % 2 == 1), tokens, index))
        rows.sort(key=lambda item: item[0].order)
        tokens = [token for _, some, _ in rows for token in some]
        batch = [row if adapt else replace(row, adapted=False) for row, _, _ in rows]
        logits = model.forward(pool, tokens, batch, list(range(len(tokens))))
        for part, (_, _, index) in zip(
            logits.split([row.count for row, _, _ in rows]), rows, strict=True
        ):
            found[index].append(part)
    return [torch.cat(parts) for parts in found]


@pytest.fixture(scope="module")
def int8(
    adapter: Path, tiny_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    if not has_compiled_kernels():
        pytest.skip("this machine has no C compiler")
    cache = str(tmp_path_factory.mktemp("cache"))
    return load_model(
        TorchEngineConfig(tiny_folder, cache, adapter=adapter, device="cpu", dtype="int8")
    )


COMPANIES = ([0, 1], [0, 2, 4, 1, 3], [7, 6, 5], [*range(8)], [3, 5, 7])


def test_neighbours_of_either_kind_change_no_bit_of_int8(int8: LanguageModel) -> None:
    alone = [in_company(int8, [number])[0] for number in range(8)]
    for company in COMPANIES:
        for number, found in zip(company, in_company(int8, company), strict=True):
            assert torch.equal(found, alone[number]), (company, number)


@pytest.mark.parametrize("layers", ["ours", "of transformers"])
def test_neighbours_with_the_adapter_change_no_bit_of_float32(
    layers: str, adapter: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layers == "of transformers":
        own_layers(monkeypatch)
    config = TorchEngineConfig(tiny_folder, adapter=adapter, device="cpu", dtype="float32")
    model = load_model(config)
    for company in COMPANIES:
        # A product of another number of rows may be rounded differently, with and without adapters.
        plain = in_company(model, company, adapt=False)
        for number, found, without in zip(company, in_company(model, company), plain, strict=True):
            if number % 2:
                alone = in_company(model, [number])[0]
                torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
            else:
                assert torch.equal(found, without), (company, number)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-DPLATO_PLAIN", "-DPLATO_NO_TILES"])
def test_every_processor_computes_the_same(
    option: str,
    int8: LanguageModel,
    adapter: Path,
    tiny_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_kernels("cc", tmp_path / "plain.so", option)
    plain = NativeKernels(ctypes.CDLL(str(tmp_path / "plain.so")))
    monkeypatch.setattr("plato.engine.torch.load.new_kernels", lambda: plain)
    config = TorchEngineConfig(
        tiny_folder, str(tmp_path), adapter=adapter, device="cpu", dtype="int8"
    )
    found = in_company(load_model(config), [*range(8)])
    torch.testing.assert_close(found, in_company(int8, [*range(8)]), atol=1e-2, rtol=1e-3)


def test_threads_change_no_bit(int8: LanguageModel) -> None:
    assert isinstance(int8, PackedModel)
    results = []
    for threads in (3, 1):
        int8._kernels.threads = threads
        results.append(in_company(int8, list(range(8))))
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)


@pytest.mark.skipif(not has_compiled_kernels(), reason="this machine has no C compiler")
def test_int8_is_as_precise_as_with_merged_weights(
    biased_folder: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A change that is smaller than the weights, as those of tuned adapters are.
    fields = {"r": 16, "lora_alpha": 1, "rank_pattern": {"k_proj": 7, "up_proj": 70}}
    adapter = made(biased_folder, tmp_path / "adapter", target_modules="all-linear", **fields)
    plain = AutoModelForCausalLM.from_pretrained(biased_folder)
    PeftModel.from_pretrained(plain, adapter).merge_and_unload().save_pretrained(
        tmp_path / "merged"
    )
    tokenizer.save_pretrained(tmp_path / "merged")
    config = TorchEngineConfig(
        biased_folder, str(tmp_path / "cache"), adapter=adapter, device="cpu", dtype="int8"
    )
    exact = logits(replace(config, dtype="float32"))[1]
    merged = logits(replace(config, model_folder=str(tmp_path / "merged"), adapter=None))[0]
    found = [logits(config)[1]]
    own_layers(monkeypatch)
    shutil.rmtree(tmp_path / "cache")
    found.append(logits(config)[1])
    for one in found:
        assert (one - exact).std() < 1.2 * (merged - exact).std()


@pytest.mark.skipif(not has_compiled_kernels(), reason="this machine has no C compiler")
def test_packed_weights_of_both_are_kept_apart(
    adapter: Path, tiny_folder: str, tmp_path: Path
) -> None:
    plain = TorchEngineConfig(tiny_folder, str(tmp_path), device="cpu", dtype="int8")
    adapted = TorchEngineConfig(
        tiny_folder, str(tmp_path), adapter=adapter, device="cpu", dtype="int8"
    )
    first = logits(plain), logits(adapted)
    assert (first[1][0] - first[1][1]).abs().max() > 1
    assert len(list((tmp_path / "packed").glob("*/*.pt"))) == 2
    for before, config in zip(first, (plain, adapted), strict=True):
        torch.testing.assert_close(logits(config), before)


@pytest.mark.parametrize("changed", [{"num_hidden_layers": 3}, {"intermediate_size": 256}])
def test_an_adapter_of_another_model_is_refused(
    changed: dict[str, int], tiny_folder: str, tmp_path: Path
) -> None:
    config = AutoConfig.from_pretrained(tiny_folder, **changed)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    other = made(str(tmp_path / "model"), tmp_path / "adapter", target_modules="all-linear")
    with pytest.raises(EngineError, match=r"other layers|size mismatch"):
        load_model(TorchEngineConfig(tiny_folder, adapter=other, device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["q_proj"], "trainable_token_indices": [1]},
    ],
    ids=lambda fields: [*fields][-1],
)
def test_what_is_not_for_single_rows_is_refused(
    fields: dict[str, Any], tiny_model_folder: str, tmp_path: Path
) -> None:
    adapter = made(tiny_model_folder, tmp_path, **fields)
    config = TorchEngineConfig(tiny_model_folder, adapter=adapter, device="cpu", dtype="float32")
    with pytest.raises(EngineError, match="merge it into the weights"):
        load_model(config)


def test_other_kinds_of_adapters_are_refused(tiny_folder: str, tmp_path: Path) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), IA3Config())
    model.save_pretrained(tmp_path)
    config = TorchEngineConfig(tiny_folder, adapter=tmp_path, device="cpu", dtype="float32")
    with pytest.raises(EngineError, match=r"IA3.*merge it into the weights"):
        load_model(config)


def test_an_adapter_that_matches_nothing_is_refused(tiny_folder: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 4, "target_modules": ["query"]}'
    )
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    config = TorchEngineConfig(tiny_folder, adapter=tmp_path, device="cpu", dtype="float32")
    with pytest.raises(EngineError, match="cannot be applied to this model"):
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
    return EngineCore(load_model(config), config, "epoch")


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


async def test_an_engine_serves_both(
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
