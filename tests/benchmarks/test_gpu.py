from benchmarks.gpu import CHUNK, Bench, Sizes, llama_config, measure_graph, random_model
from plato.engine.torch.config import TorchEngineConfig


def test_the_shape_is_llama_3_8b_by_default() -> None:
    config = llama_config(32, 4096)
    assert (config.intermediate_size, config.num_attention_heads, config.num_key_value_heads) == (
        14336,
        32,
        8,
    )


def test_a_random_model_decodes_a_forked_graph() -> None:
    config = TorchEngineConfig("", device="cpu", dtype="float32", prefill_chunk=CHUNK)
    model = random_model(config, llama_config(1, 128))
    sizes = Sizes(widths=(1,), context=16, steps=2, prompt=64, repeats=1)
    (row,) = measure_graph(Bench(model, config, sizes))
    assert row["prefilled_shared"] == 32 + 8 * 24
    assert row["prefilled_separate"] == 8 * (32 + 24)
