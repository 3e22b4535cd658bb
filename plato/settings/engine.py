"""The model, and what computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from plato.errors import SettingsError, file_problem
from plato.settings.values import DEFAULT_MODEL, Section, Url, split


class ModelSettings(Section):
    """The model, its adapter and its weights."""

    title = "Model"

    model: str = Field(
        default=DEFAULT_MODEL,
        min_length=1,
        description="Name on the Hugging Face hub, or a local folder. With upstreams only its "
        "tokenizer and chat template are needed.",
    )
    served_model_name: str | None = Field(
        default=None,
        description="Name of the model in `GET /v1/models`; default: the value of `model`.",
    )
    model_revision: str | None = Field(
        default=None,
        min_length=1,
        description="Commit, tag or branch of the model on the Hugging Face hub; default: the "
        "newest at the first download. Set a commit if machines have caches of their own, so that "
        "all of them load the same model.",
    )
    adapter: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of a PEFT adapter, for plans and their parts; all other answers "
        "are the model's without it. `none`: none; "
        "default: the one that comes with Plato for the default model.",
    )
    cache_dir: str | None = Field(
        default=None,
        description="Folder for converted models and packed weights; default: ~/.cache/plato.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto",
        description="Type of the weights in the built-in engine; `auto`: bfloat16 on a GPU, int8 "
        "on a CPU, float32 where there is no C compiler.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the built-in engine computes; `auto`: a GPU, if any."
    )

    @field_validator("model")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()

    @property
    def model_name(self) -> str:
        """Name of the model in the API."""
        return self.served_model_name or self.model


class EngineSettings(Section):
    """What decodes: in each decoder, or the servers that decode."""

    title = "Engine"

    engine: str = Field(
        default="torch",
        description="`torch`, `vllm` (in each decoder), `openai` (the servers that `upstreams` "
        "names), or the import path `package.module:factory` of another engine.",
    )
    engine_options: dict[str, Any] = Field(
        default={},
        description="Options for an engine given by its import path; for `vllm` further arguments "
        "of its `AsyncEngineArgs`, such as `quantization`.",
    )
    tensor_parallel_size: int = Field(
        default=1,
        ge=1,
        description="GPUs that share the model in each decoder of the engine `vllm`.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of each GPU's memory that the engine `vllm` takes for weights and KV "
        "cache; default: as vLLM chooses. On a CPU `kv_budget_mb` counts.",
    )
    upstreams: Annotated[tuple[Url, ...], NoDecode, BeforeValidator(split)] = Field(
        default=(),
        description="URLs of the servers of the engine `openai`, separated by commas: vLLM, SGLang "
        "or llama.cpp, each with the configured model, or any server with chat completions. Each "
        "is a decoder.",
    )
    upstream_dialect: Literal["vllm", "sglang", "llama", "chat"] | None = Field(
        default=None,
        description="Kind of the upstream servers; `chat`: any with chat completions; default: "
        "they are asked.",
    )
    upstream_model: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the model at the upstream servers; default: the first one there.",
    )
    upstream_grammar: Literal["gbnf", "lark", "none"] | None = Field(
        default=None,
        description="Notation of the grammars that upstream servers get, besides JSON schemas; "
        "`none`: they get neither; default: they are asked.",
    )
    upstream_priority: bool = Field(
        default=False, description="Whether the upstream servers schedule by priority."
    )
    upstream_api_key: SecretStr | None = Field(
        default=None, description="Key for the upstream servers."
    )
    upstream_api_key_file: str | None = Field(
        default=None, min_length=1, description="File with the key for the upstream servers."
    )
    upstream_start_s: float = Field(
        default=60.0,
        gt=0,
        description="Time that upstream servers have to answer when this server starts.",
    )
    kv_budget_mb: int = Field(
        default=1024,
        ge=1,
        description="Size of the KV cache of each decoder, in MiB; see `gpu_memory_utilization`.",
    )
    max_sequences: int = Field(default=16, ge=1, description="Maximum batch size of a decoder.")
    prefill_chunk: int = Field(
        default=256, ge=16, description="Maximum number of prompt tokens computed in one step."
    )
    max_waiting: int = Field(default=256, ge=1, description="Maximum queue length of a decoder.")

    def upstream_key(self) -> str | None:
        """The key for upstream servers. Raises `SettingsError` if its file cannot be read."""
        if self.upstream_api_key is not None:
            return self.upstream_api_key.get_secret_value() or None
        if self.upstream_api_key_file is None:
            return None
        try:
            return Path(self.upstream_api_key_file).expanduser().read_text().strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"upstream_api_key_file is {self.upstream_api_key_file!r}, which cannot be read "
                f"({file_problem(error)})"
            ) from error
