"""The same request twice has one effect and one answer.

A key belongs to a client and an operation. Its answer is written in the transaction of
the effect, so that there is no moment in which one exists without the other.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    Cast,
    Column,
    ColumnElement,
    DateTime,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from domain.runtime.database import metadata
from domain.runtime.errors import KeyReused, Refusal

#: Clients may repeat a request for a day; after that a key may mean something new.
KEPT_FOR = timedelta(hours=24)

#: Rows deleted in one transaction.
PRUNE_BATCH = 5_000

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
class Answer:
    """What was answered under a key, as the door rendered it."""

    payload_hash: str
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request, and whether it was given before."""

    text: str
    replayed: bool = False


T = TypeVar("T")


def lookup(session: Session, keys: Collection[Key]) -> Mapping[Key, Answer]:
    """Return the answers that were given under these keys."""
    if not keys:
        return {}
    rows = session.execute(_LOOKUP, _columns(keys))
    return {
        Key(row.client_id, row.operation, row.idempotency_key): Answer(row.payload_hash, row.answer) for row in rows
    }


def store(session: Session, answers: Sequence[tuple[Key, Answer, UUID | None]]) -> int:
    """Store answers under their keys, in key order. Return how many keys were new.

    It waits for a twin in flight. Fewer new keys than answers means that a twin has
    committed meanwhile: the caller must roll back.
    """
    if not answers:
        return 0
    ordered = sorted(answers, key=lambda entry: (entry[0].client_id, entry[0].operation, entry[0].key))
    parameters = _columns([key for key, _, _ in ordered]) | {
        "hashes": [answer.payload_hash for _, answer, _ in ordered],
        "reservations": [reservation_id for _, _, reservation_id in ordered],
        "answers": [answer.text for _, answer, _ in ordered],
    }
    return len(session.execute(_STORE, parameters).all())


def once(
    session: Session,
    key: Key | None,
    payload_hash: str,
    act: Callable[[], T | Refusal],
    render: Callable[[T], str],
) -> Answered | Refusal:
    """Act, unless this key has been answered before. Return the answer.

    A twin in flight is waited for. A refusal is returned, not stored, so that the same
    key may try again; the caller commits before it raises it.
    """
    if key is None:
        outcome = act()
        return outcome if isinstance(outcome, Refusal) else Answered(render(outcome))
    if store(session, [(key, Answer(payload_hash, ""), None)]) == 0:
        answered = lookup(session, [key])
        # It may have been pruned in between: then it is ours.
        return replay(answered[key], key, payload_hash) if answered else once(session, key, payload_hash, act, render)
    outcome = act()
    if isinstance(outcome, Refusal):
        session.execute(delete(requests).where(*_is(key)))
        return outcome
    text = render(outcome)
    session.execute(update(requests).where(*_is(key)).values(answer=text))
    return Answered(text)


def replay(answer: Answer, key: Key, payload_hash: str) -> Answered | KeyReused:
    """Return the answer that was given under a key, if it was given to the same request."""
    return Answered(answer.text, replayed=True) if answer.payload_hash == payload_hash else KeyReused(key.key)


def prune(session: Session) -> int:
    """Forget up to PRUNE_BATCH keys that are older than KEPT_FOR. Return how many."""
    old = (
        select(requests.c.client_id, requests.c.operation, requests.c.idempotency_key)
        .where(requests.c.created_at < func.now() - KEPT_FOR)
        .order_by(requests.c.created_at)
        .limit(PRUNE_BATCH)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    same = [requests.c[name] == old.c[name] for name in ("client_id", "operation", "idempotency_key")]
    return len(session.execute(delete(requests).where(*same).returning(requests.c.idempotency_key)).all())


def _is(key: Key) -> list[ColumnElement[bool]]:
    return [
        requests.c.client_id == key.client_id,
        requests.c.operation == key.operation,
        requests.c.idempotency_key == key.key,
    ]


def _columns(keys: Collection[Key]) -> dict[str, list[object]]:
    return {
        "clients": [key.client_id for key in keys],
        "operations": [key.operation for key in keys],
        "keys": [key.key for key in keys],
    }


def _texts(name: str) -> Cast[Any]:
    return cast(bindparam(name), ARRAY(Text))


_asked = (
    func.unnest(_texts("clients"), _texts("operations"), _texts("keys"))
    .table_valued(column("client_id", Text), column("operation", Text), column("idempotency_key", Text))
    .render_derived("asked")
)
_LOOKUP = select(requests).where(
    requests.c.client_id == _asked.c.client_id,
    requests.c.operation == _asked.c.operation,
    requests.c.idempotency_key == _asked.c.idempotency_key,
)
_given = (
    func.unnest(
        _texts("clients"),
        _texts("operations"),
        _texts("keys"),
        _texts("hashes"),
        cast(bindparam("reservations"), ARRAY(Uuid)),
        _texts("answers"),
    )
    .table_valued(
        column("client_id", Text),
        column("operation", Text),
        column("idempotency_key", Text),
        column("payload_hash", Text),
        column("reservation_id", Uuid),
        column("answer", Text),
    )
    .render_derived("given")
)
_STORE = (
    insert(requests)
    .from_select(list(_given.c), select(_given))
    .on_conflict_do_nothing()
    .returning(requests.c.idempotency_key)
)
