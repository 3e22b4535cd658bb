"""From a GGUF file of SmolLM2 to a folder with safetensors.

Run as a script, with the file and an existing folder as arguments.
"""

from __future__ import annotations

import sys
from pathlib import Path

VERSION = 1
"""Raise it when the result changes: conversions that are kept are then made anew."""


def convert(gguf: Path, target: Path) -> None:
    """Write tokenizer, configuration and weights (float32) of `gguf` to `target`."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # A GGUF file only names its pre-tokenizer ("smollm"), and transformers passes over that name.
    # The original sets digits apart first; without that, a paragraph that begins with a number
    # gets other tokens than those the model was trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(target)

    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # transformers counts whatever came from GGUF as quantised and refuses to save it, though its
    # weights are plain float32 by now: a model that never was quantised takes them over.
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
