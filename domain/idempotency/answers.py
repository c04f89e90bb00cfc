"""The same request twice has one effect and one answer.

A key belongs to a client and an operation. Its answer is written in the transaction of
the effect, so that there is no moment in which one exists without the other.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Text, Uuid, delete, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain.idempotency.table import Answered, Key, StoredAnswer, requests
from domain.runtime.database import records
from domain.runtime.encoding import encode
from domain.runtime.errors import IdempotencyKeyReused, Refusal
from domain.runtime.pipeline import Query

T = TypeVar("T")

#: What a hash has after a # begins with so many digits, which stand for the key that it was made by.
KEY_DIGITS = 6


def lookup(session: Session, keys: Collection[Key]) -> Mapping[Key, StoredAnswer]:
    """Return the answers that were given under these keys."""
    return read_answers(session.execute(*lookup_query(keys))) if keys else {}


def lookup_query(keys: Collection[Key]) -> Query:
    """Return the query whose rows `read_answers` reads."""
    return Query(_LOOKUP, {"asked": encode([_scope(key) for key in keys])})


def read_answers(rows: Iterable[Any]) -> Mapping[Key, StoredAnswer]:
    """Return the answers that were looked up, by key."""
    return {
        Key(row.client_id, row.operation, row.idempotency_key): StoredAnswer(row.payload_hash, row.answer)
        for row in rows
    }


def store_query(given: Sequence[tuple[Key, StoredAnswer, UUID | None]]) -> Query:
    """Return the query that stores answers under their keys, in key order. Its rows are the keys that were new.

    It waits for a duplicate in flight. Fewer new keys than answers means that a duplicate has
    committed meanwhile: the caller must roll back.
    """
    ordered = sorted(given, key=lambda entry: (entry[0].client_id, entry[0].operation, entry[0].key))
    rows = [
        _scope(key) | {"payload_hash": answer.payload_hash, "reservation_id": made, "answer": answer.text}
        for key, answer, made in ordered
    ]
    return Query(_STORE, {"given": encode(rows)})


def once(
    session: Session,
    key: Key | None,
    payload_hash: str,
    act: Callable[[Session], T | Refusal],
    render: Callable[[T], str],
) -> Answered | Refusal:
    """Act, unless this key has been answered before. Return the answer.

    A duplicate in flight is waited for. A refusal is returned, not stored, so that the same
    key may try again; the caller commits before it raises it.
    """
    if key is None:
        outcome = act(session)
        return outcome if isinstance(outcome, Refusal) else Answered(render(outcome))
    if not session.execute(*store_query([(key, StoredAnswer(payload_hash, ""), None)])).all():
        answered = lookup(session, [key])
        # It may have been pruned in between: then it is ours.
        return replay(answered[key], key, payload_hash) if answered else once(session, key, payload_hash, act, render)
    outcome = act(session)
    if isinstance(outcome, Refusal):
        session.execute(delete(requests).where(*_is(key)))
        return outcome
    text = render(outcome)
    session.execute(update(requests).where(*_is(key)).values(answer=text))
    return Answered(text)


def replay(answer: StoredAnswer, key: Key, payload_hash: str) -> Answered | IdempotencyKeyReused:
    """Return the answer that was given under a key, if it was given to the same request."""
    is_same = is_same_request(answer.payload_hash, payload_hash)
    return Answered(answer.text, replayed=True) if is_same else IdempotencyKeyReused(key.key)


def is_same_request(stored: str, given: str) -> bool:
    """Return whether two hashes may be of the same request.

    A hash may begin with the rule by which it was made, and a colon. Hashes of two rules can't be compared: another
    release has made one of them, and most repeats are honest, so they count as the same request. So do those whose
    parts after a # were made by different keys, if what is before it agrees.
    """
    if stored == given or stored.rpartition(":")[0] != given.rpartition(":")[0]:
        return True
    (plain, _, keyed), (other_plain, _, other_keyed) = stored.partition("#"), given.partition("#")
    return plain == other_plain and keyed[:KEY_DIGITS] != other_keyed[:KEY_DIGITS]


def _is(key: Key) -> list[ColumnElement[bool]]:
    return [
        requests.c.client_id == key.client_id,
        requests.c.operation == key.operation,
        requests.c.idempotency_key == key.key,
    ]


def _scope(key: Key) -> dict[str, object]:
    return {"client_id": key.client_id, "operation": key.operation, "idempotency_key": key.key}


_asked = records("asked", client_id=Text, operation=Text, idempotency_key=Text)
# The limit makes PostgreSQL look each key up by the primary key. It would join by reading all keys where it takes the
# table for small, which it does until the table is analyzed.
_one = (
    select(requests)
    .where(
        requests.c.client_id == _asked.c.client_id,
        requests.c.operation == _asked.c.operation,
        requests.c.idempotency_key == _asked.c.idempotency_key,
    )
    .limit(1)
    .lateral("one")
)
_LOOKUP = select(_one).select_from(_asked.join(_one, true()))
_given = records(
    "given",
    client_id=Text,
    operation=Text,
    idempotency_key=Text,
    payload_hash=Text,
    reservation_id=Uuid,
    answer=Text,
)
_STORE = (
    insert(requests)
    .from_select(list(_given.c), select(_given))
    .on_conflict_do_nothing()
    .returning(requests.c.client_id, requests.c.operation, requests.c.idempotency_key)
)
