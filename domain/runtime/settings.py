"""Settings: environment variables, read once and checked before anything starts."""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, parse_qs

import psycopg
from dotenv import dotenv_values
from psycopg.conninfo import make_conninfo
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from domain.runtime import secrets, urls
from domain.runtime.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent.parent

#: Where `bin/up` keeps the data of the servers that it starts, and the file that says where they listen.
HOME = Path(os.environ.get("HOLDFAST_HOME") or ROOT / ".holdfast").absolute()


Network = IPv4Network | IPv6Network

#: Limits such as `30/minute`, `500 per 2 hours` or `20/second; 500/hour`, in the notation of `limits`. 0 is none.
_RATE = r"\s*[1-9]\d{0,9}\s*(/|\s+per\s+)\s*(\d{1,4}\s*)?(second|minute|hour|day)s?\s*"
RATES = re.compile(rf"\s*0?\s*|{_RATE}(;{_RATE})*")

#: The path of the URL of a queue of Amazon SQS: it ends in the name of the queue.
QUEUE = re.compile(r"/(?:[^/]+/)*[A-Za-z0-9_-]{1,80}(?:\.fifo)?")

#: An origin as browsers send it: in small letters, and without a path.
ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:_-]+")


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
    #: The services that bookings need. Without a URL, its step is skipped.
    inventory_url: str | None = Field(default=None, alias="INVENTORY_URL")
    pricing_url: str | None = Field(default=None, alias="PRICING_URL")
    payment_url: str | None = Field(default=None, alias="PAYMENT_URL")
    #: How long one call of these three may take.
    step_timeout_seconds: float = Field(default=5.0, gt=0, le=60, alias="STEP_TIMEOUT_SECONDS")
    #: The queues of Amazon SQS that get the messages of the slot contract, see domain.fulfilment.slot_queues.
    sqs_booking_request_queue_url: str | None = Field(default=None, alias="SQS_BOOKING_REQUEST_QUEUE_URL")
    sqs_booking_confirmation_queue_url: str | None = Field(default=None, alias="SQS_BOOKING_CONFIRMATION_QUEUE_URL")
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
    #: Who may call the API: whoever has a token or an API key, or anybody who reaches the port.
    auth: Literal["token", "none"] = Field(default="token", alias="AUTH")
    auth_jwks_url: str | None = Field(default=None, alias="AUTH_JWKS_URL")
    auth_public_key_file: Path | None = Field(default=None, alias="AUTH_PUBLIC_KEY_FILE")
    auth_issuer: str | None = Field(default=None, alias="AUTH_ISSUER")
    auth_audience: str | None = Field(default=None, alias="AUTH_AUDIENCE")
    auth_algorithms: Annotated[tuple[Literal["RS256", "PS256", "ES256", "EdDSA"], ...], NoDecode] = Field(
        default=("RS256", "PS256", "ES256", "EdDSA"), alias="AUTH_ALGORITHMS"
    )
    #: The clocks of the identity provider and of this machine may differ by this.
    auth_leeway_seconds: float = Field(default=60.0, ge=0, le=600, alias="AUTH_LEEWAY_SECONDS")
    auth_roles_claim: str = Field(default="roles", alias="AUTH_ROLES_CLAIM")
    auth_venues_claim: str = Field(default="venues", alias="AUTH_VENUES_CLAIM")
    auth_providers_claim: str = Field(default="provider_id", alias="AUTH_PROVIDERS_CLAIM")
    auth_guest_claim: str = Field(default="sub", alias="AUTH_GUEST_CLAIM")
    #: How many requests a principal may send; from an address; and from an address without credentials that are valid.
    #: A process makes some thousands of reservations in a second, so one principal can't have all of it for long.
    rate_limit: str = Field(default="1000/second", alias="RATE_LIMIT")
    rate_limit_address: str = Field(default="2000/second", alias="RATE_LIMIT_ADDRESS")
    rate_limit_failed_auth: str = Field(default="30/minute", alias="RATE_LIMIT_FAILED_AUTH")
    #: Further limits of operations, for each principal: reservations.make=200/second, items.list=60/minute.
    rate_limits: str = Field(default="", alias="RATE_LIMITS")
    #: The origins of pages elsewhere that may call the API.
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(default=(), alias="CORS_ORIGINS")
    #: The networks of the proxies whose X-Forwarded-For is believed.
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(default=(), alias="TRUSTED_PROXIES")
    #: The keys of guests' personal data, see domain.privacy.keyring. Without keys no personal data is taken.
    pii_keys: SecretStr | None = Field(default=None, alias="PII_KEYS")
    #: What makes the key service that keeps those keys instead, see domain.privacy.key_service.
    pii_key_service: str | None = Field(default=None, alias="PII_KEY_SERVICE")
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

    @field_validator("confirmation_url", "inventory_url", "pricing_url", "payment_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url and (_split(url).scheme not in {"http", "https"} or not _split(url).hostname):
            raise ValueError("must begin with http:// or https:// and a host")
        return url or None

    @field_validator("sqs_booking_request_queue_url", "sqs_booking_confirmation_queue_url")
    @classmethod
    def _is_a_queue(cls, url: str | None) -> str | None:
        if not url:
            return None
        parts = _split(url)
        if parts.scheme != "https" or not parts.hostname or not QUEUE.fullmatch(parts.path):
            raise ValueError(
                "must be the URL of a queue, such as https://sqs.us-east-1.amazonaws.com/123456789012/booking-requests"
            )
        return url

    @field_validator("auth_jwks_url")
    @classmethod
    def _is_safe(cls, url: str | None) -> str | None:
        if not url:
            return None
        parts = _split(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
            raise ValueError("must begin with https://: whoever can change what it answers can make tokens")
        return url

    @field_validator("webhook_private_networks", "auth_algorithms", "trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _are_several(cls, values: object) -> object:
        return [one.strip() for one in values.split(",") if one.strip()] if isinstance(values, str) else values

    @field_validator("rate_limit", "rate_limit_address", "rate_limit_failed_auth")
    @classmethod
    def _is_a_rate(cls, written: str) -> str:
        return _require_rate(written)

    @field_validator("rate_limits")
    @classmethod
    def _are_rates(cls, written: str) -> str:
        for one in filter(None, map(str.strip, written.split(","))):
            operation, is_for, rate = one.partition("=")
            if not is_for or not operation.strip():
                raise ValueError("must have operations with their limits, such as reservations.make=200/second")
            _require_rate(rate)
        return written

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is no origin, which is written https://host or https://host:port")
        return origins

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        if "%" in host:
            raise ValueError(f"must have no zone, but {host} has one: %{host.partition('%')[2]}. Leave it out")
        return str(ip_address(host))

    @field_validator("routes_file", "auth_public_key_file")
    @classmethod
    def _is_there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path

    @model_validator(mode="after")
    def _is_closed(self) -> Self:
        if self.auth == "none" and not ip_address(self.host).is_loopback:
            raise ValueError(
                f"AUTH: none lets anybody do everything, and HOST {self.host} can be reached from other machines."
                " Set HOST to 127.0.0.1, or AUTH to token"
            )
        if (self.auth_jwks_url or self.auth_public_key_file) and not (self.auth_issuer and self.auth_audience):
            raise ValueError(
                "AUTH_ISSUER and AUTH_AUDIENCE: both are needed; tokens that are issued for others would be accepted"
            )
        if self.auth_jwks_url and self.auth_public_key_file:
            raise ValueError("AUTH_JWKS_URL: there is AUTH_PUBLIC_KEY_FILE as well; set one of them")
        return self

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
        for name, value in dotenv_values(HOME / "env").items():
            if value is not None and not secrets.is_given(name.removesuffix(secrets.SUFFIX)):
                os.environ[name] = value
        try:
            return cls(**secrets.from_files())  # type: ignore[arg-type]  # the environment has the rest
        except ValidationError as error:
            # Not `from error`: it holds the values, and a URL may hold a password.
            faults = "\n".join(_fault(fault) for fault in error.errors())
            raise ConfigurationError(faults) from None


#: What to do about DATABASE_URL, the only variable that must be set.
UNSET = "it is not set. Set it, or start bin/up: all commands then find its database"


def complaint(fault: ErrorDetails, *, missing: str = "it is required") -> str:
    """Return what is wrong, in our words: one of our own messages, or one of pydantic's without its jargon."""
    if fault["type"] == "missing":
        return missing
    said = fault["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    return said.replace("Input should be", "it must be", 1)


def _fault(fault: ErrorDetails) -> str:
    """Return what is wrong, beginning with the name of the variable. What concerns several names them itself."""
    wrong = complaint(fault, missing=UNSET)
    return f"{fault['loc'][0]}: {wrong}" if fault["loc"] else wrong


def _require_rate(written: str) -> str:
    if not RATES.fullmatch(written):
        raise ValueError(
            "must have a number and a time, such as 1000/second, 30/minute or 500/2 hours, with semicolons between"
            " several; 0 is for none"
        )
    return written


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or (host is not None and ip_address(host).is_loopback)
    except ValueError:
        return False


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
