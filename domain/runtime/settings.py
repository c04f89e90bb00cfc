"""Settings: environment variables, read once and checked before anything starts."""

import os
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, parse_qs

import psycopg
from dotenv import load_dotenv
from psycopg.conninfo import make_conninfo
from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from domain.runtime import urls
from domain.runtime.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent.parent

#: Where `bin/up` keeps the data of the servers that it starts, and the file that says where they listen.
HOME = Path(os.environ.get("HOLDFAST_HOME") or ROOT / ".holdfast").absolute()


Network = IPv4Network | IPv6Network


class Settings(BaseSettings):
    """Environment variables. A variable that is not set may be in $HOLDFAST_HOME/env, where `bin/up` writes them."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    database_url: str = Field(alias="DATABASE_URL")
    #: The same database without a pooler between, for what needs a session of PostgreSQL to itself.
    database_direct_url: str | None = Field(default=None, alias="DATABASE_DIRECT_URL")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", alias="REDIS_URL")
    #: The broker that carries wake-ups, if it is not the Redis of REDIS_URL.
    broker_url: str | None = Field(default=None, alias="BROKER_URL")
    routes_file: Path | None = Field(default=None, alias="HOLDFAST_ROUTES")
    confirmation_url: str | None = Field(default=None, alias="CONFIRMATION_URL")
    confirmation_timeout_seconds: float = Field(default=5.0, gt=0, le=60, alias="CONFIRMATION_TIMEOUT_SECONDS")
    #: For every sink whose route has no `timeout_seconds`.
    delivery_timeout_seconds: float = Field(default=10.0, gt=0, le=60, alias="DELIVERY_TIMEOUT_SECONDS")
    #: Webhooks go to public addresses and into these networks only. Otherwise the author of a webhook's URL could
    #: make Holdfast call a server that only Holdfast can reach.
    webhook_private_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(), alias="WEBHOOK_PRIVATE_NETWORKS"
    )
    #: A hold outlives one payment page (10 minutes at most providers) and one retry.
    hold_seconds: int = Field(default=900, ge=1, le=604_800, alias="HOLD_SECONDS")
    host: str = Field(default="127.0.0.1", alias="HOST")
    port: int = Field(default=8000, ge=1, le=65_535, alias="PORT")
    #: Where the gRPC service listens, on HOST, and where it serves its metrics.
    grpc_port: int = Field(default=50_051, ge=1, le=65_535, alias="GRPC_PORT")
    grpc_metrics_port: int = Field(default=9193, ge=0, le=65_535, alias="GRPC_METRICS_PORT")
    #: Whether a resource that a gRPC call is the first to name is registered, as a calendar of capacity 1.
    grpc_register_resources: bool = Field(default=True, alias="GRPC_REGISTER_RESOURCES")
    web_processes: int = Field(default=1, ge=1, le=64, alias="WEB_CONCURRENCY")
    #: A request that changes something and has no idempotency key is refused.
    require_idempotency_keys: bool = Field(default=False, alias="REQUIRE_IDEMPOTENCY_KEYS")
    #: More waiting requests than this are answered 503: "busy" is not "sold out".
    queue_limit: int = Field(default=2_048, ge=1, alias="QUEUE_LIMIT")
    #: The ports at which worker and scheduler serve their metrics, on HOST; 0 for none. The API serves its own at PORT.
    worker_metrics_port: int = Field(default=9191, ge=0, le=65_535, alias="WORKER_METRICS_PORT")
    scheduler_metrics_port: int = Field(default=9192, ge=0, le=65_535, alias="SCHEDULER_METRICS_PORT")
    outbox_retention_days: float = Field(default=7.0, gt=0, le=36_500, alias="OUTBOX_RETENTION_DAYS")
    #: A month, as the advice to consumers is about the ids that they keep.
    feed_retention_days: float = Field(default=30.0, gt=0, le=36_500, alias="FEED_RETENTION_DAYS")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", alias="LOG_LEVEL")

    @field_validator("database_direct_url", mode="before")
    @classmethod
    def _is_set(cls, url: str | None) -> str | None:
        return url or None

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _is_postgresql(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = _split(url)
        if parts.scheme.split("+")[0] not in {"postgresql", "postgres"}:
            raise ValueError("must begin with postgresql://")
        if parts.netloc.count("@") > 1:
            raise ValueError(urls.TWO_AT)
        try:
            _require_known_options(make_url(url))
        except ArgumentError:
            raise ValueError("can't be read; it is postgresql://user:password@host:port/database") from None
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        if _split(url).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must begin with redis://, rediss:// or unix://")
        _require_password_before_host(url)
        return url

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker(cls, url: str | None) -> str | None:
        if not url:
            return None
        if _split(url).scheme not in {"redis", "rediss", "unix", "amqp", "amqps"}:
            raise ValueError("must begin with redis://, rediss://, unix:// or amqp://")
        _require_password_before_host(url)
        return url

    @field_validator("confirmation_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url and (_split(url).scheme not in {"http", "https"} or not _split(url).hostname):
            raise ValueError("must begin with http:// or https:// and a host")
        return url or None

    @field_validator("webhook_private_networks", mode="before")
    @classmethod
    def _are_networks(cls, networks: object) -> object:
        return [one.strip() for one in networks.split(",") if one.strip()] if isinstance(networks, str) else networks

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        return str(ip_address(host))

    @field_validator("routes_file")
    @classmethod
    def _is_there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path

    def direct(self) -> Self:
        """Return these settings with a DATABASE_URL that leads around a pooler, if there is one."""
        return self.model_copy(update={"database_url": self.database_direct_url or self.database_url})

    def broker(self) -> str:
        """Return the URL of the broker that carries wake-ups."""
        return self.broker_url or self.redis_url

    @classmethod
    def load(cls) -> Self:
        """Return the settings. Raises ConfigurationError, which names each variable that is wrong."""
        # The file goes into the environment itself, as the routes file may refer to its variables.
        load_dotenv(HOME / "env")
        try:
            return cls()  # type: ignore[call-arg]  # the environment has it
        except ValidationError as error:
            # Not `from error`: it holds the values, and a URL may hold a password.
            faults = "\n".join(f"{fault['loc'][0]}: {complaint(fault, missing=UNSET)}" for fault in error.errors())
            raise ConfigurationError(faults) from None


#: What to do about DATABASE_URL, the only variable that must be set.
UNSET = "it is not set. Set it, or start bin/up: all commands then find its database"


def complaint(fault: ErrorDetails, *, missing: str = "it is required") -> str:
    """Return what is wrong, in our words: one of our own messages, or one of pydantic's without its jargon."""
    if fault["type"] == "missing":
        return missing
    said = fault["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    return said.replace("Input should be", "it must be", 1)


def _split(url: str) -> SplitResult:
    """Return the parts of a URL whose port can be read. Raises ValueError."""
    urls.require_readable_port(url)
    return urls.split(url)


def _require_known_options(url: URL) -> None:
    """Raise ValueError for an option that PostgreSQL does not have: it may be the end of a password with an &."""
    try:
        make_conninfo(**dict.fromkeys(url.query, ""))
    except psycopg.Error:
        raise ValueError("PostgreSQL has no option of one of these names; in a password write & as %26") from None


def _require_password_before_host(url: str) -> None:
    """Raise ValueError if the password is an option: an & would end it, and begin the name of another option."""
    if "password" in parse_qs(_split(url).query):
        raise ValueError("its password can't be an option; write it before the host: redis://user:password@host")
