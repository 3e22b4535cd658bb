"""What a model's folder says about its tokenizer, read without transformers.

Importing transformers brings torch: 600 MB in every process that only counts tokens.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from plato.errors import ModelError

logger = logging.getLogger(__name__)

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens that chat templates can refer to."""


@dataclass(frozen=True)
class TokenizerConfig:
    """A tokenizer, and the names and template that go with it."""

    backend: Tokenizer
    names: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by their names, such as `eos_token`."""
    chat_template: str | None = None
    """None for models without one, mostly base models."""
    adds_bos: bool | None = None
    """Whether texts begin with the BOS token; None: as the backend's post-processor says."""

    def token_id(self, name: str) -> int | None:
        """Id of a special token by its name, if the model has it."""
        token = self.names.get(name)
        return None if token is None else self.backend.token_to_id(token)

    @classmethod
    def load(cls, folder: str) -> TokenizerConfig:
        """Read a model's folder; if it has no `tokenizer.json`, use transformers.

        Raises `ModelError`.
        """
        try:
            if (Path(folder) / "tokenizer.json").is_file():
                return cls._read(Path(folder))
            return cls._converted(folder)
        except ModelError:
            raise
        except Exception as error:  # tokenizers raises bare `Exception` for a broken file
            raise ModelError(
                f"the tokenizer in {folder} cannot be loaded ({error}); "
                "check that tokenizer.json and tokenizer_config.json exist and are complete"
            ) from error

    @classmethod
    def _read(cls, folder: Path) -> TokenizerConfig:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # Older folders name the special tokens in a file of their own.
        config = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
        names = {name: _content(config[name]) for name in NAMES if config.get(name)}
        known = config.get("added_tokens_decoder", {})
        for _, token in sorted(known.items(), key=lambda item: int(item[0])):
            if backend.token_to_id(token["content"]) is None:
                backend.add_tokens([AddedToken(**token)])
        special = [AddedToken(name, special=True, normalized=False) for name in names.values()]
        backend.add_special_tokens(special)
        if "eos_token" not in names and (end := _end_of_text(folder, backend)) is not None:
            names["eos_token"] = end
        adds_bos = config.get("add_bos_token")
        return cls(backend, names, _template(folder, config), adds_bos)

    @classmethod
    def _converted(cls, folder: str) -> TokenizerConfig:
        logger.warning(
            "%s has no tokenizer.json, so every process imports transformers (600 MB); write one "
            "with AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
            folder,
        )
        from transformers import AutoTokenizer

        converted = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not converted.is_fast:
            raise ModelError(
                "this model has no fast tokenizer; add tokenizer.json to its folder "
                "(transformers converts most slow tokenizers)"
            )
        template = _default(converted.chat_template) if converted.chat_template else None
        return cls(converted.backend_tokenizer, converted.special_tokens_map, template)


def context_length(folder: str) -> int:
    """Longest sequence of the model, in tokens. Raises `ModelError`."""
    try:
        config = _json(Path(folder) / "config.json")
        config = config.get("text_config") or config
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if isinstance(config.get(name), int):
                return int(config[name])
        # Some families have a default that is not in the file.
        from transformers import AutoConfig

        loaded = AutoConfig.from_pretrained(folder, local_files_only=True)
        return int(loaded.get_text_config().max_position_embeddings)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"the configuration in {folder} cannot be served ({error}); "
            "use a causal language model that transformers supports"
        ) from error


def end_tokens(folder: str, tokenizer: TokenizerConfig) -> frozenset[int]:
    """Ids of the tokens that end the model's turn: by its configuration, and by its tokenizer."""
    eos = tokenizer.token_id("eos_token")
    return frozenset(_configured_ends(Path(folder))) | (frozenset() if eos is None else {eos})


def _configured_ends(folder: Path) -> list[int]:
    config = _json(folder / "generation_config.json") or _json(folder / "config.json")
    ends = config.get("eos_token_id")
    return [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]


def _end_of_text(folder: Path, backend: Tokenizer) -> str | None:
    """The token that ends a text by the model's configuration, if the tokenizer names none."""
    ends = _configured_ends(folder)
    return backend.id_to_token(ends[0]) if ends else None


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The default chat template."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template") or _json(folder / "chat_template.json").get(
        "chat_template"
    )
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}
    return _default(template) if template else None


def _default(template: str | Mapping[str, str]) -> str:
    if isinstance(template, str):
        return template
    if "default" not in template:
        raise ModelError(
            "the chat template of this model cannot be used: it has several, "
            f"{', '.join(sorted(template))}, and none is the default"
        )
    return template["default"]


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file."""
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    return content
