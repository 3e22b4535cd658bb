"""Converts a GGUF file of SmolLM2 to a folder with safetensors.

Run it as a script, with the file and an existing folder as arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path

VERSION = 1
"""Increase it when the result changes: stored conversions are then replaced."""


def convert(gguf: Path, target: Path) -> None:
    """Write tokenizer, configuration and weights (float32) of `gguf` to `target`."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # A GGUF file only names its pre-tokenizer ("smollm"), and transformers ignores the name. The
    # original splits digits first; without that, a paragraph that begins with a number gets tokens
    # that the model was not trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(target)

    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # transformers treats a model loaded from GGUF as quantised and refuses to save it, although its
    # weights are float32 now. Therefore copy them to a model that was never quantised.
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(
            type(loaded.config).from_dict(config), dtype=torch.float32
        )
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
