"""What transformers makes of the same tokenizer and template."""

from __future__ import annotations

from functools import cache

from transformers import PreTrainedTokenizerFast

from plato.prompting import Tokenizer


@cache
def hf_of(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers wraps it."""
    config = tokenizer.config
    hf = PreTrainedTokenizerFast(tokenizer_object=config.backend, **config.names)
    hf.chat_template = config.chat_template
    return hf
