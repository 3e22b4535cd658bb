"""Who may ask, and how much."""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from plato.settings.values import Hosts, Origins, Section


class ClientSettings(Section):
    """Keys, names and origins."""

    title = "Clients"

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

    @model_validator(mode="after")
    def _one_way_to_tell_tenants(self) -> ClientSettings:
        if self.tenant_header is not None and (self.api_keys or self.api_keys_file):
            raise ValueError(
                "tenant_header is for gateways that check API keys; remove it, or the keys"
            )
        return self

    @property
    def protected(self) -> bool:
        """Whether only requests of known tenants are answered."""
        return bool(self.api_keys or self.api_keys_file or self.tenant_header)


class SchedulerLimits(Section):
    """What each scheduler grants a tenant."""

    title = "Limits of each scheduler"

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


class IngressLimits(Section):
    """What each ingress takes from clients."""

    title = "Limits of each ingress"

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
