"""The table of answered requests, by idempotency key."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Column, DateTime, ForeignKey, Index, String, Table, Text, Uuid, func

from domain.runtime.database import metadata

#: Clients may repeat a request for a day; after that a key may mean something new.
KEPT_FOR = timedelta(hours=24)

requests = Table(
    "idempotency_requests",
    metadata,
    Column("client_id", String(255), primary_key=True),
    Column("operation", String(50), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("payload_hash", String(64), nullable=False),
    Column("reservation_id", Uuid, ForeignKey("reservations.id")),
    Column("answer", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_idempotency_requests_created_at", "created_at"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key in its scope. `key` has 1 to 255 characters."""

    client_id: str
    operation: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered under a key, as the endpoint rendered it."""

    payload_hash: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request, and whether it was given before."""

    text: str
    replayed: bool = False
