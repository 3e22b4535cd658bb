"""Tokenizer, chat template and prompt layout of a model, without its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

from plato.engine import SamplingParams
from plato.engine.tokenizer_config import context_length
from plato.models.adapter import ModelFiles
from plato.models.calibration import Calibration
from plato.models.sampling import default_sampling
from plato.prompting.template import ChatTemplate
from plato.prompting.tokenizer import Tokenizer
from plato.prompting.transcript import TranscriptLayout
from plato.settings import Settings

JSON_PUNCTUATION = frozenset('{}[]",:')
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelTools:
    """Tokenizer, chat template, context length and default sampling of one model."""

    folder: str
    tokenizer: Tokenizer
    template: ChatTemplate
    context_length: int
    fingerprint: str
    """Of the model with its adapter; see `plato.engine.fingerprint`."""
    base_fingerprint: str
    """Of the model without it."""
    calibration: Calibration
    """Of the decisions of planners."""
    sampling: SamplingParams
    """Of requests that set none."""

    @classmethod
    def load(cls, settings: Settings) -> ModelTools:
        """Download the model if necessary, and load its tokenizer. Raises `ModelError`."""
        files = ModelFiles.resolve(settings)
        folder = str(files.folder)
        tokenizer = Tokenizer.load(folder)
        found = files.fingerprint(settings.dtype)
        logger.info("model %s in %s has fingerprint %s", settings.model, folder, found)
        return cls(
            folder,
            tokenizer,
            ChatTemplate(tokenizer),
            context_length(folder),
            found,
            files.base.fingerprint(settings.dtype),
            Calibration.of(settings, files.adapter),
            default_sampling(settings, folder),
        )

    @cached_property
    def layout(self) -> TranscriptLayout:
        """The prompt layout for this model."""
        return TranscriptLayout(
            self.tokenizer,
            self.template,
            self.context_length,
            self.fingerprint,
            self.base_fingerprint,
        )

    @cached_property
    def json_tokens(self) -> frozenset[int]:
        """Tokens of the punctuation of JSON, which penalties of repetitions must spare."""
        return self.tokenizer.tokens_of(JSON_PUNCTUATION)

    def text(self, tokens: tuple[int, ...]) -> str:
        """Output tokens as text."""
        return self.tokenizer.decode(tokens)

    def prompt_text(self, tokens: tuple[int, ...]) -> str:
        """Prompt tokens as text, including markup."""
        return self.tokenizer.decode(tokens, special=True)
