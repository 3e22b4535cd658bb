"""The entry of vLLM's workers to Plato's sampling, for vLLM's model runner V1."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

from plato.engine.sampling.matcher import GrammarCompiler
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.vllm.arguments import ROW
from plato.engine.vllm.orphans import end_with_owner
from plato.engine.vllm.rows import Row, sample_rows

if TYPE_CHECKING:
    import torch


class PlatoLogitsProcessor(LogitsProcessor):
    """Chooses the tokens of all rows with a packed `RowRequest`."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        end_with_owner()
        self._model = vllm_config.model_config
        self._rows: dict[int, Row] = {}
        """By their place in the batch, which bounds them."""

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        return GrammarCompiler(
            TokenizerConfig.load(self._model.model), self._model.get_vocab_size()
        )

    def is_argmax_invariant(self) -> bool:
        """False: it is applied to greedy rows, which all of ours are."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Sequences have entered, left or moved within the batch."""
        process_dict_updates(self._rows, batch_update, self._row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Leave one token possible in each of our rows."""
        sample_rows(logits, self._rows)
        return logits

    def _row(self, params: Any, prompt: list[int] | None, output: list[int]) -> Row | None:
        packed = (params.extra_args or {}).get(ROW)
        return None if packed is None else Row(packed, output, self._grammars)
