"""What tests of the audit need: entries, seals, and a hand that changes what nobody may change."""

from sqlalchemy import text

from domain.access import audit
from domain.access.audit import Verification
from tests.support.builders import Db

TABLES = "audit_entries", "audit_seals"


def recorded(db: Db, count: int = 1, *, who: str = "ann") -> list[int]:
    """Record entries, each in a transaction of its own, and return their ids."""
    ids = []
    for number in range(count):
        with db.begin() as session:
            ids.append(audit.record(session, "item.stock", who=who, subject=f"item:{number}", rows=1))
    return ids


def sealed(db: Db, count: int = 1) -> list[int]:
    """Record entries and seal them together. Return their ids."""
    ids = recorded(db, count)
    seal(db)
    return ids


def seal(db: Db) -> int:
    """Make one seal, if something waits for it. Return how many entries it has."""
    with db.begin() as session:
        return audit.seal(session)


def verified(db: Db, sought: str | None = None) -> Verification:
    with db.begin() as session:
        return audit.verify(session, sought)


def last_hash(db: Db) -> str:
    with db.begin() as session:
        last = audit.last_seal(session)
    assert last is not None
    return last.hash


def tamper(db: Db, *statements: str) -> None:
    """Change the audit as somebody could who owns the database."""
    with db.begin() as session:
        for table in TABLES:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER audit_refuse_changes"))
        for statement in statements:
            session.execute(text(statement))
        for table in TABLES:
            session.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_refuse_changes"))


#: What Python can't read: a year after 9999, and JSON that is too deep or has too large a number.
FORGED = {
    "time": "'20000-01-01', '{}'",
    "endless time": "'infinity', '{}'",
    "depth": "now(), jsonb_build_object('deep', (repeat('[', 3000) || repeat(']', 3000))::jsonb)",
    "number": "now(), jsonb_build_object('large', repeat('9', 5000)::numeric)",
    "size": "now(), jsonb_build_object('long', repeat('x', 1000001))",
}


def forge(db: Db, kind: str) -> None:
    """Write an entry past Holdfast, as whoever owns the database can."""
    entry = "INSERT INTO audit_entries (action, who, why, happened_at, selection) VALUES ('replay', 'eve', '', "
    with db.begin() as session:
        session.execute(text(f"{entry}{FORGED[kind]})"))
