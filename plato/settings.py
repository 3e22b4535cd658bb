"""All settings.

Every field can be set by an environment variable (`PLATO_` and the name in capitals), by a flag of
`plato serve`, in its file (`--config`), by a Serve argument (`serve run deployments.app:build
name=value`), or in the constructor. Flags, arguments and the constructor take precedence, then the
environment, then the file, then the default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from plato.errors import SettingsError, file_problem
from plato.validation import is_mapping, is_optional, is_secret, what_it_takes

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_NODES = 32
"""Maximum number of nodes in any plan."""
MAX_TITLE_CHARS = 200
"""Maximum length of any node's title."""
MAX_PARAMETER = 10**9
"""Bound of the engine for sampling parameters; also of the inverse of a penalty."""


NULL = "null"
"""No value, where text is written."""
VLLM_ENGINE = "vllm"
UPSTREAM_ENGINE = "openai"


def _split(value: object) -> object:
    """A list in one string, separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _base_url(url: str) -> str:
    """The URL of a server, without the `/v1` that many people add."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL; write http://host:port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL has a user or password, which logs would show; set a key instead")
    return url.rstrip("/").removesuffix("/v1")


Url = Annotated[str, AfterValidator(_base_url)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)]
Host = Annotated[str, Field(pattern=r"^(\*\.)?([a-z0-9._-]+|\[[0-9a-f:.]+\])$")]
Hosts = Annotated[tuple[Host, ...], NoDecode, BeforeValidator(_split)]
LOCAL_HOSTS = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
"""Names that no page can have for a server of its own."""


class SamplingFields(BaseModel):
    """How to sample, as settings, a request or a model's `generation_config.json` say it.

    `None` leaves a parameter to whoever is asked next; see `plato.models.sampling`.
    """

    temperature: float | None = Field(default=None, ge=0, le=2, description="0: greedy decoding.")
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the most likely tokens that together have this probability.",
    )
    top_k: Annotated[int | None, AfterValidator(lambda k: k and max(k, 0))] = Field(
        default=None,
        ge=-1,
        le=MAX_PARAMETER,
        description="Sample from this number of most likely tokens; 0 or -1: from all.",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Minimum probability of a token, as a fraction of the most likely token's.",
    )
    repetition_penalty: float | None = Field(
        default=None,
        ge=1 / MAX_PARAMETER,
        le=2,
        description="Multiplicative penalty for tokens that already occur, 1 is neutral; above 1 "
        "it keeps small models from looping.",
    )

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters that are not `None`, by the names of `plato.engine.SamplingParams`."""
        values = {name: getattr(self, name) for name in SamplingFields.model_fields}
        return {name: value for name, value in values.items() if value is not None}


class Settings(SamplingFields, BaseSettings):
    """Settings for operators. Times are in seconds; other units are in the names.

    Sampling parameters are the defaults of requests; plans have their own.
    """

    model_config = SettingsConfigDict(
        env_prefix="PLATO_", extra="forbid", frozen=True, env_parse_none_str=NULL
    )

    # Model
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

    # Engine
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
    upstreams: Annotated[tuple[Url, ...], NoDecode, BeforeValidator(_split)] = Field(
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

    # Deployments
    decoders: int = Field(default=1, ge=1, description="Number of decoder replicas.")
    max_decoders: int | None = Field(
        default=None,
        ge=1,
        description="Autoscale the decoders by load, from `decoders` up to this number.",
    )
    decoder_tokens: int = Field(
        default=2048,
        ge=1,
        description="Autoscaling target: tokens to compute and decode per decoder.",
    )
    upscale_delay_s: float = Field(
        default=10.0, ge=0, description="Time over the target before decoders are added."
    )
    downscale_delay_s: float = Field(
        default=300.0, ge=0, description="Time under the target before decoders are removed."
    )
    decoder_cpus: float = Field(
        default=1.0, ge=0, description="CPUs that Ray reserves for each decoder."
    )
    decoder_gpus: float = Field(
        default=0.0,
        ge=0,
        description="GPUs that Ray reserves for each decoder; `tensor_parallel_size` GPUs if that "
        "is more than 1.",
    )
    decoder_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of each decoder's engine; default: number of cores / `decoders`.",
    )
    planners: int = Field(default=1, ge=1, description="Number of planner replicas.")
    schedulers: int = Field(default=1, ge=1, description="Number of scheduler replicas.")
    ingresses: int = Field(default=1, ge=1, description="Number of ingress replicas.")
    service_cpus: float = Field(
        default=0.1,
        ge=0,
        description="CPUs that Ray reserves for each ingress, planner and scheduler.",
    )
    decoder_resource: str | None = Field(
        default=None,
        min_length=1,
        description="Custom Ray resource of which each decoder takes one unit. Decoders are "
        "scheduled only on Ray nodes that offer it.",
    )
    service_resource: str | None = Field(
        default=None,
        min_length=1,
        description="Custom Ray resource of which each ingress, planner and scheduler takes one "
        "unit.",
    )

    # Context store
    redis_url: str | None = Field(
        default=None,
        description="URL of a shared Redis or Valkey, not of a Redis Cluster; default: an embedded "
        "Valkey.",
    )
    namespace: str | None = Field(
        default=None,
        min_length=1,
        description="First part of all keys in the store: applications with the same namespace and "
        "model adopt each other's runs; default: the name of the Serve application, or `plato`.",
    )
    redis_timeout_s: float = Field(
        default=0.5, gt=0, description="Timeout of a call to the store; without it runs go on."
    )
    redis_ttl_s: int = Field(default=3600, ge=1, description="Retention of runs in the store.")
    tenant_store_mb: int = Field(
        default=64,
        ge=1,
        description="Size of the stored runs of one API key, in MiB. Its oldest ended runs make "
        "room for new ones; if those in progress fill it, detached runs are refused with 429. The "
        "embedded store has 256 MiB.",
    )

    # Planning
    max_nodes: int = Field(
        default=8,
        ge=2,
        le=MAX_NODES,
        description="Maximum number of parts of a plan, handed in or decoded.",
    )
    plan_parts: int = Field(
        default=4,
        ge=2,
        le=MAX_NODES,
        description="Number of parts that the model is asked for; lowered to `max_nodes`.",
    )
    plan_cache: int = Field(
        default=0,
        ge=0,
        description="Plans that each planner keeps, by tenant and conversation: a question that is "
        "asked again gets the same plan at once. 0: none.",
    )
    max_title_words: int = Field(
        default=12, ge=2, le=20, description="Maximum length of a decoded title."
    )
    split_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="`auto` splits if the model's probability of not splitting is at most this; "
        "default: as calibrated for the model.",
    )
    dependency_threshold: float | None = Field(
        default=None,
        description="A part gets dependencies if its log odds of needing no earlier part are at "
        "most this: the lower, the fewer dependencies; default: as calibrated for the model.",
    )
    node_max_tokens: int = Field(
        default=256, ge=1, description="Maximum number of tokens of a node, unless overridden."
    )
    sequential_max_tokens: int = Field(
        default=1024,
        ge=1,
        description="Maximum number of tokens of a sequential answer, unless overridden.",
    )

    # Deadlines
    plan_deadline_s: float = Field(
        default=30.0, gt=0, description="Maximum time for a plan; then the answer is sequential."
    )
    node_deadline_s: float = Field(
        default=120.0, gt=0, description="Maximum time for one part, retries included."
    )
    run_deadline_s: float = Field(
        default=300.0, gt=0, description="Maximum time for an answer, and that requests may set."
    )
    lease_ttl_s: float = Field(
        default=1.2,
        gt=0.2,
        description="A decoder drops the sequences of a consumer that has not renewed its lease "
        "for "
        "this long.",
    )

    # Streaming
    stream_interval_s: float = Field(
        default=0.1,
        ge=0,
        description="Tokens are grouped over this interval before they are sent; a shorter "
        "interval "
        "costs more CPU.",
    )

    # Admission
    max_runs: int = Field(
        default=64,
        ge=1,
        description="Maximum number of runs in flight per scheduler; one in eight is kept for "
        "tenants without a run.",
    )
    max_waiting_runs: int = Field(
        default=256, ge=0, description="Maximum number of runs waiting per scheduler."
    )
    patience_s: float = Field(
        default=10.0, gt=0, description="Maximum time that a run waits for admission."
    )

    # Load
    branch_slowdown: float | None = Field(
        default=1.15,
        ge=1.0,
        description="How many times as long the steps of a decoder may take because parts are "
        "decoded side by side, while others there are answered sequentially; further parts wait. "
        "`None`: parts start at once, whatever that costs others.",
    )
    token_target_s: float | None = Field(
        default=None,
        gt=0,
        description="Target for the time between tokens: instead of `branch_slowdown`, parts are "
        "decoded side by side with other runs as long as steps take at most this long.",
    )
    first_text_target_s: float | None = Field(
        default=None,
        gt=0,
        description="Target for the time to first text: `auto` does not split answers that would "
        "miss it because of their plan.",
    )

    # Clients
    api_keys: SecretStr | None = Field(
        default=None,
        description="API keys as `TENANT=KEY`, separated by commas; KEY can be a hash, see "
        "`plato key`. Without keys and `tenant_header` every request is answered.",
    )
    api_keys_file: str | None = Field(
        default=None,
        min_length=1,
        description="File of API keys, a line `TENANT=HASH` each, which is read again when it "
        "changes.",
    )
    tenant_header: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header with the tenant of a request, such as `X-Tenant`, if all requests come "
        "through a gateway that checks keys and sets it.",
    )
    allowed_hosts: Hosts = Field(
        default=(),
        description="Names by which clients may call the server, in lower case and without port, "
        "separated by commas; `*.NAME`: all below it; default: any, but only those of this machine "
        "if `plato serve` listens on loopback without keys.",
    )
    cors_origins: Origins = Field(
        default=(),
        description="Origins whose pages may use the API from a browser, such as "
        "`https://chat.example.org`, separated by commas; `*`: all; default: none.",
    )

    # Limits of each scheduler
    max_tenant_runs: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of runs of one API key in flight and waiting per scheduler, "
        "and, times `schedulers`, of its questions in progress per ingress; more are refused with "
        "429.",
    )
    tenant_tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Tokens a minute, as billed, that one API key may have per scheduler, and from "
        "upstream servers themselves per ingress; then its requests are refused with 429.",
    )

    # Limits of each ingress
    max_requests: int = Field(
        default=1024,
        ge=1,
        description="Maximum number of requests in progress per ingress, and of event streams of "
        "runs; more are refused with 503.",
    )
    max_tenant_requests: int = Field(
        default=256,
        ge=1,
        description="Maximum number of requests of one API key in progress per ingress; more are "
        "refused with 429.",
    )
    max_tenant_followers: int = Field(
        default=64,
        ge=1,
        description="Maximum number of event streams of one API key's runs per ingress.",
    )
    max_run_followers: int = Field(
        default=16, ge=1, description="Maximum number of event streams of one run per ingress."
    )
    body_deadline_s: float = Field(
        default=10.0,
        gt=0,
        description="Maximum time to receive a request's body, plus 1 s for every 64 KiB of it.",
    )
    write_deadline_s: float = Field(
        default=30.0,
        gt=0,
        description="A stream ends, and its answer is cancelled, if its client reads nothing for "
        "this long.",
    )

    # Placement
    placement: str = Field(
        default="kv_aware",
        description="Placement policy: `kv_aware`, or the import path `package.module:name` of a "
        "callable that returns a `plato.scheduling.placement.Policy`.",
    )
    move_cost: float | None = Field(
        default=0.1,
        ge=0,
        description="Cost of transferring the KV of one token from another decoder, in computed "
        "tokens; null: never transfer, always recompute.",
    )

    # Recovery
    silence_s: float = Field(
        default=1.8,
        gt=1.0,
        description="A process that is silent for this long is considered lost, and its work is "
        "retried elsewhere.",
    )
    node_attempts: int = Field(
        default=4,
        ge=1,
        description="Consecutive attempts without a new token before a node fails; an attempt on a "
        "silent decoder counts as half.",
    )
    ownership_ttl_s: float = Field(
        default=6.0,
        gt=1.0,
        description="Lease on a run; another scheduler takes the run over when it expires.",
    )
    failover_s: float = Field(
        default=60.0, gt=0, description="Maximum time that a run waits for another scheduler."
    )
    drain_s: float = Field(
        default=30.0,
        ge=0,
        description="Time that answers have to end when a server stops, or a replica is shut down.",
    )

    # Tracing
    otlp_endpoint: Url | None = Field(
        default=None,
        description="URL of an OpenTelemetry collector, for OTLP over HTTP, such as "
        "`http://localhost:4318`, which gets a trace of every run; default: no traces. Needs the "
        "extra `otel`.",
    )
    otlp_texts: bool = Field(
        default=False,
        description="Whether traces have the texts of questions, titles and answers.",
    )

    # Measurements
    equal_work: bool = Field(
        default=False,
        description="For benchmarks: accept `plato.decode_plan` and `plato.exact_lengths`, which "
        "make "
        "answers of different modes equal work.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level of the lines in the log."
    )

    @model_validator(mode="after")
    def _bounds(self) -> Settings:
        if self.max_decoders is not None and self.max_decoders < self.decoders:
            raise ValueError(
                f"max_decoders is {self.max_decoders}, less than decoders ({self.decoders})"
            )
        if self.tensor_parallel_size > 1 and self.engine != VLLM_ENGINE:
            raise ValueError(
                f"only the engine {VLLM_ENGINE} shares a model among GPUs, and engine is "
                f"{self.engine!r}; leave tensor_parallel_size out"
            )
        if self.engine == UPSTREAM_ENGINE and not self.upstreams:
            raise ValueError(
                f"the engine {UPSTREAM_ENGINE} needs the URL of a server; add --upstream URL, or "
                "set upstreams"
            )
        if self.upstreams and self.engine != UPSTREAM_ENGINE:
            raise ValueError(
                f"upstreams are for the engine {UPSTREAM_ENGINE}, and engine is {self.engine!r}; "
                f"add --engine {UPSTREAM_ENGINE}, or leave them out"
            )
        if self.upstreams and (self.decoders != 1 or self.max_decoders is not None):
            raise ValueError(
                "each of the upstreams is a decoder, so decoders and max_decoders must not be set"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_tell_tenants(self) -> Settings:
        if self.tenant_header is not None and (self.api_keys or self.api_keys_file):
            raise ValueError(
                "tenant_header is for gateways that check API keys; remove it, or the keys"
            )
        return self

    @field_validator("model")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()

    @property
    def decoder_count(self) -> int:
        """Number of decoder replicas at start."""
        return len(self.upstreams) or self.decoders

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

    @property
    def protected(self) -> bool:
        """Whether only requests of known tenants are answered."""
        return bool(self.api_keys or self.api_keys_file or self.tenant_header)

    @property
    def model_name(self) -> str:
        """Name of the model in the API."""
        return self.served_model_name or self.model


SECTIONS = {
    "temperature": "Sampling",
    "model": "Model",
    "engine": "Engine",
    "decoders": "Deployments",
    "redis_url": "Context store",
    "max_nodes": "Planning",
    "plan_deadline_s": "Deadlines",
    "stream_interval_s": "Streaming",
    "max_runs": "Admission",
    "api_keys": "Clients",
    "max_tenant_runs": "Limits of each scheduler",
    "max_requests": "Limits of each ingress",
    "placement": "Placement",
    "silence_s": "Recovery",
    "otlp_endpoint": "Tracing",
    "equal_work": "Measurements and logs",
}
"""Headings of the settings, each by the first one below it."""


_UNPARSED = re.compile(r'error parsing value for field "(\w+)"')
"""Said by pydantic-settings of a variable that is not JSON where JSON is wanted."""


def section_of(name: str) -> str:
    """The heading that a setting is under."""
    fields = list(Settings.model_fields)
    before = fields[: fields.index(name) + 1]
    return next(SECTIONS[each] for each in reversed(before) if each in SECTIONS)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def read_settings(
    values: Mapping[str, object] | None = None, written: Mapping[str, str] | None = None
) -> Settings:
    """Settings from `values` and the environment.

    A value can be the text that a person has written, as in the environment. `written` says by
    setting how: as a flag, for example. Raises `SettingsError` that names it so.
    """
    given = {name: _typed(name, value) for name, value in (values or {}).items()}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(_problem(error.errors()[0], given, written or {})) from error


def _typed(name: str, value: object) -> object:
    """A value as pydantic takes it, from text as in the environment."""
    field = Settings.model_fields.get(name)
    if field is None or not isinstance(value, str):
        return value
    if value == NULL and is_optional(field):
        return None
    if is_mapping(field):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _problem(problem: ErrorDetails, given: Mapping[str, object], written: Mapping[str, str]) -> str:
    """What is wrong, by the name that the person knows it by, and what would be right."""
    name = str(problem["loc"][0]) if problem["loc"] else ""
    told = written.get(name, name if name in given else variable_of(name))
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"there is no setting {written.get(name, name)}{hint}"
    if problem["type"] == "value_error":
        reason = problem["msg"].removeprefix("Value error, ")
        if (unparsed := _UNPARSED.match(reason)) is not None:
            name = unparsed[1]
            return f"{variable_of(name)} takes {what_it_takes(Settings.model_fields[name])}"
        return f"{told} is invalid: {reason}" if name else reason
    field = Settings.model_fields[name]
    if problem["type"] == "string_pattern_mismatch":
        return f"{told} has {problem['input']!r}, which it cannot take. {field.description}"
    value = "" if is_secret(field) else f" is {problem['input']!r}; it"
    return f"{told}{value} takes {what_it_takes(field)}"
