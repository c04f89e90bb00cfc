"""A key, and storing and counting keys."""

from sqlalchemy import func, select

from domain import idempotency
from domain.idempotency import Key, StoredAnswer, requests
from tests.support.builders import Db

KEY = Key("client", "reservations.cancel", "k")


def stored(db: Db, *keys: Key) -> int:
    """Store an answer under each key. Return how many keys were new."""
    with db.begin() as session:
        return len(idempotency.store(session, [(key, StoredAnswer("p", "a"), None) for key in keys]))


def key_count(db: Db) -> int:
    with db.begin() as session:
        return session.execute(select(func.count()).select_from(requests)).scalar_one()
