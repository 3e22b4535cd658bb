"""What vLLM does, emulated: `VllmEngine` is tested without installing it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from plato.engine import GenerateRequest
from plato.engine.sampling.matcher import GrammarCompiler
from plato.engine.vllm import VllmConfig
from plato.engine.vllm.arguments import ROW, sampling_arguments
from plato.engine.vllm.blocks import BlockEvent, BlocksStored, Keys, salt_of
from plato.engine.vllm.protocol import Step
from plato.engine.vllm.rows import Row, sample_rows, score_of
from plato.engine.vllm.statistics import Statistics

BLOCK = 16


class EmulatedBackend:
    """Caches whole blocks as it computes them, takes turns among sequences, samples greedily."""

    adapter = None
    dtype = "float32"
    block_tokens = BLOCK
    kv_tokens = 1 << 16
    failed = False

    def __init__(self, config: VllmConfig) -> None:
        self.statistics = Statistics()
        self._model = AutoModelForCausalLM.from_pretrained(
            config.model_folder, dtype=torch.float32
        ).eval()
        self.context_length: int = self._model.config.max_position_embeddings
        self.vocabulary: int = self._model.config.vocab_size
        self._grammars = GrammarCompiler(config.tokenizer, self.vocabulary)
        self._blocks: dict[tuple[int | Keys, tuple[int, ...]], int] = {}
        self._events: asyncio.Queue[list[BlockEvent]] = asyncio.Queue()

    async def generate(
        self, request: GenerateRequest, end_tokens: frozenset[int]
    ) -> AsyncGenerator[Step]:
        arguments = sampling_arguments(request, end_tokens)
        salt = salt_of(request.prompt)
        keys = () if salt is None else (salt,)
        tokens = [*request.prompt.tokens, *request.emitted]
        output: list[int] = []
        row = Row(arguments["extra_args"][ROW], output, self._grammars)
        kv, todo = DynamicCache(), tokens
        cached = self._store(tokens, keys)
        for _ in range(arguments["max_tokens"]):
            await asyncio.sleep(0)
            token, scores = self._compute(todo, kv, row)
            output.append(token)
            todo = [token]
            self.statistics.record(
                SimpleNamespace(kv_cache_usage=0.0),
                SimpleNamespace(num_generation_tokens=1, num_preempted_reqs=0),
            )
            yield Step((token,), scores if len(output) == 1 else (), cached)
            if token in arguments["stop_token_ids"]:
                return
            self._store([*tokens, *output], keys)

    async def kv_events(self) -> AsyncGenerator[list[BlockEvent]]:
        while True:
            yield await self._events.get()

    def shutdown(self) -> None:
        pass

    @torch.inference_mode()
    def _compute(
        self, tokens: list[int], kv: DynamicCache, row: Row
    ) -> tuple[int, tuple[float, ...]]:
        """Add `tokens` to `kv`; returns the next token, and the scores that are asked for."""
        logits = self._model(
            torch.tensor([tokens]), past_key_values=kv, use_cache=True, logits_to_keep=1
        ).logits[0]
        sample_rows(logits, {0: row})
        scores = tuple(score_of(float(logits[0, each])) for each in row.request.score)
        return int(logits[0].argmax()), scores

    def _store(self, tokens: list[int], keys: Keys) -> int:
        """Cache whole blocks; returns how many tokens were cached before, but never the last."""
        last: int | Keys = keys
        cached = 0
        for start in range(0, len(tokens) - len(tokens) % BLOCK, BLOCK):
            block = tuple(tokens[start : start + BLOCK])
            if (last, block) in self._blocks:
                cached += BLOCK
                last = self._blocks[last, block]
                continue
            number = len(self._blocks)
            parent = last if isinstance(last, int) else None
            self._events.put_nowait([BlocksStored((number,), parent, block, keys)])
            self._blocks[last, block] = last = number
        return min(cached, (len(tokens) - 1) // BLOCK * BLOCK)
