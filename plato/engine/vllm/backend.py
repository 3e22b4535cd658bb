"""vLLM itself: started, asked, and followed by its KV events and statistics.

Whatever depends on vLLM's interface is here, in `arguments` and in `processor`, by what is read in
its version 0.32.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from vllm import SamplingParams
from vllm.config import KVEventsConfig
from vllm.distributed.kv_events import BlockRemoved, BlockStored, KVEventBatch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import StatLoggerBase

from plato.engine.errors import EngineClosedError, EngineError, RequestRefusedError
from plato.engine.protocol import GenerateRequest
from plato.engine.rank import rank
from plato.engine.vllm.arguments import engine_arguments, sampling_arguments
from plato.engine.vllm.blocks import BlockEvent, BlocksCleared, BlocksRemoved, BlocksStored, salt_of
from plato.engine.vllm.config import VllmConfig
from plato.engine.vllm.orphans import own
from plato.engine.vllm.protocol import Step
from plato.engine.vllm.rows import score_of
from plato.engine.vllm.statistics import Statistics

logger = logging.getLogger(__name__)

ADAPTER = "adapter"
"""Name of the adapter at vLLM."""
SHUTDOWN_S = 5.0
ENVIRONMENT = {
    # The processor is of the model runner V1.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # This process has threads, and a fork of it would inherit their locks.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


class VllmBackend:
    """vLLM's `AsyncLLM`. Belongs to the event loop in which it is made."""

    def __init__(self, config: VllmConfig) -> None:
        """Start vLLM, which takes minutes. Raises `EngineError`."""
        self.statistics = Statistics()
        self._config = config
        self._numbers = itertools.count()
        self._folder = Path(tempfile.mkdtemp(prefix="plato-vllm-"))
        endpoint = f"ipc://{self._folder / 'kv-events'}"
        self._events = zmq.asyncio.Context.instance().socket(zmq.SUB)
        self._events.subscribe(b"")
        self._events.connect(endpoint)  # Before vLLM binds it, so that no event is missed.
        os.environ.update(ENVIRONMENT)
        own(os.environ)
        try:
            arguments = AsyncEngineArgs(
                **engine_arguments(config, cpu=current_platform.is_cpu()),
                kv_events_config=KVEventsConfig(enable_kv_cache_events=True, endpoint=endpoint),
            )
            self._llm = AsyncLLM.from_engine_args(
                arguments, stat_loggers=[lambda *_: _StatLogger(self.statistics)]
            )
        except Exception as error:
            self._close_events()
            raise EngineError(f"vLLM cannot serve {config.model_folder}: {error}") from error
        self._adapter = (
            None if config.adapter is None else LoRARequest(ADAPTER, 1, str(config.adapter))
        )
        settings = self._llm.vllm_config
        self.context_length: int = settings.model_config.max_model_len
        self.vocabulary: int = settings.model_config.get_vocab_size()
        self.dtype = str(settings.model_config.dtype).removeprefix("torch.")
        self.block_tokens: int = settings.cache_config.block_size
        self.kv_tokens: int = settings.cache_config.num_gpu_blocks * self.block_tokens

    @property
    def adapter(self) -> str | None:
        """Name of the adapter in KV events, if there is one."""
        return None if self._adapter is None else ADAPTER

    @property
    def failed(self) -> bool:
        """Whether vLLM's processes have ended by themselves."""
        return bool(self._llm.errored)

    async def generate(
        self, request: GenerateRequest, end_tokens: frozenset[int]
    ) -> AsyncGenerator[Step]:
        """See `Backend.generate`."""
        prompt: dict[str, Any] = {"prompt_token_ids": [*request.prompt.tokens, *request.emitted]}
        if (salt := salt_of(request.prompt)) is not None:
            prompt["cache_salt"] = salt
        outputs = self._llm.generate(
            prompt,
            SamplingParams(
                **sampling_arguments(request, end_tokens), output_kind=RequestOutputKind.DELTA
            ),
            f"{request.run_id}-{request.node}-{next(self._numbers)}",
            lora_request=self._adapter if self._config.adapts(request.prompt) else None,
            priority=rank(request),
        )
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield _step(output, request)
        except EngineDeadError as error:
            raise EngineClosedError(f"vLLM has failed: {error}") from error
        except VLLMClientError as error:
            raise RequestRefusedError(f"vLLM refuses the request: {error}") from error
        except EngineGenerateError as error:
            raise EngineError(f"vLLM failed: {error.__cause__ or error}") from error

    async def kv_events(self) -> AsyncGenerator[list[BlockEvent]]:
        """See `Backend.kv_events`."""
        decoder = msgspec.msgpack.Decoder(KVEventBatch)
        expected = 0
        while True:
            _, number, payload = await self._events.recv_multipart()
            found = int.from_bytes(number, "big")
            events = list(_block_events(decoder.decode(payload).events, self.block_tokens))
            if found != expected:
                logger.warning("KV events of vLLM were lost: %d to %d", expected, found - 1)
                events.insert(0, BlocksCleared())
            expected = found + 1
            yield events

    def shutdown(self) -> None:
        """End vLLM's processes."""
        self._llm.shutdown(timeout=SHUTDOWN_S)
        self._close_events()

    def _close_events(self) -> None:
        self._events.close(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)


class _StatLogger(StatLoggerBase):
    """Passes vLLM's statistics on."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        self._statistics.record(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None:
        pass


def _step(output: Any, request: GenerateRequest) -> Step:
    """From a `RequestOutput`."""
    (completion,) = output.outputs
    scores: tuple[float, ...] = ()
    if completion.logprobs:
        first = completion.logprobs[0]
        scores = tuple(score_of(first[token].logprob) for token in request.score)
    return Step(tuple(completion.token_ids), scores, output.num_cached_tokens or 0)


def _block_events(events: list[Any], block_tokens: int) -> Iterator[BlockEvent]:
    """The events of whole blocks in the first group of layers.

    Models with several kinds of attention have a group for each; full attention comes first.
    """
    for event in events:
        if isinstance(event, BlockStored):
            if event.block_size == block_tokens and not event.group_idx:
                keys = event.extra_keys[0] if event.extra_keys else None
                yield BlocksStored(
                    tuple(event.block_hashes),
                    event.parent_block_hash,
                    tuple(event.token_ids),
                    tuple(keys or ()),
                )
        elif isinstance(event, BlockRemoved):
            if not event.group_idx:
                yield BlocksRemoved(tuple(event.block_hashes))
        else:
            yield BlocksCleared()
