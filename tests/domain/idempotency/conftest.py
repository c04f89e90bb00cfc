"""A key, and storing and counting keys."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import idempotency
from domain.idempotency import Key, StoredAnswer, requests
from tests.support.builders import Db

KEY = Key("client", "reservations.cancel", "k")


def stored(db: Db, *keys: Key) -> int:
    """Store an answer under each key. Return how many keys were new."""
    with db.begin() as session:
        return len(store(session, *keys))


def store(session: Session, *keys: Key) -> set[Key]:
    """Store an answer under each key. Return the keys that were new."""
    rows = session.execute(*idempotency.store_query([(key, StoredAnswer("p", "a"), None) for key in keys]))
    return {Key(*row) for row in rows}


def key_count(db: Db) -> int:
    with db.begin() as session:
        return session.execute(select(func.count()).select_from(requests)).scalar_one()
