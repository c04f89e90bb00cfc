"""The application as a role that owns nothing, as docs/audit.md says: it works, and can't change the audit."""

import base64
import os
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox, reservations
from domain.access import audit
from domain.reservations import Filter
from domain.runtime import database
from domain.runtime.settings import ROOT, Settings
from tests.support.api_process import serving
from tests.support.audit import recorded, sealed, verified
from tests.support.builders import ROUTES, Db, a_hold, an_item
from tests.support.commands import run_command
from worker import maintenance

ROLE = "holdfast_app"

#: What all that is recorded as.
AUDITED = {
    *("pause", "resume", "bury", "replay", "discard", "use-routes"),
    *("api-key.create", "api-key.rotate", "api-key.revoke", "item.stock"),
    *("guest.read", "guest.change", "guest.search", "guest.forget", "keys.rotate"),
}

#: A reservation, its guest and its events are there for them, and each event is one of the destination `events`.
COMMANDS = (
    "api-keys create till --role staff",
    "api-keys rotate till",
    "api-keys list",
    "api-keys revoke till",
    "destinations pause events --why test",
    "destinations resume events --why test",
    "destinations probe events --why test",
    "destinations list",
    "dead-letters bury --reservation {id} --why test",
    "dead-letters list",
    "dead-letters replay --all --why test",
    "process-outbox",
    "replay --all --why test",
    "dead-letters bury --reservation {id} --why test",
    "dead-letters discard --all --why test",
    "why {id}",
    "rotate-keys",
    "forget-guest --reservation {id} --dry-run",
    "forget-guest --reservation {id}",
    "expire-reservations",
    "prune",
    "audit list",
    "audit verify",
    "doctor",
)

PERSON = {"name": "Ada Lovelace", "email": "ada@example.org"}

REQUESTS: Sequence[tuple[str, str, Any]] = (
    ("POST", "/items", {"sku": "MUG", "name": "Mug", "available_quantity": 7}),
    ("PATCH", "/items/MUG", {"adjust_quantity_by": 2}),
    ("GET", "/items", None),
    ("POST", "/outbox/destinations/events/pause", {"why": "Stocktaking"}),
    ("POST", "/outbox/destinations/events/resume", {"why": "Stocktaking"}),
    ("POST", "/guests/search", {"email": "ada@example.org"}),
)

REQUESTS_OF_A_RESERVATION: Sequence[tuple[str, str, Any]] = (
    ("GET", "/guest", None),
    ("PUT", "/guest", PERSON),
    ("POST", "/confirm", None),
    ("GET", "", None),
    ("POST", "/cancel", {}),
)

AN_ENTRY, VALUES = "(action, who, why, selection, rows", "'item.stock', 'ann', '', '{}', 1"

LAST_SEAL = """
    INSERT INTO audit_seals (number, entry_ids, digests, sealed_at, hash)
    VALUES (9223372036854775807, '{1}', sha256(''), now(), sha256(''))
"""

REFUSED = (
    "UPDATE audit_entries SET rows = 7",
    "DELETE FROM audit_entries",
    "TRUNCATE audit_entries",
    "ALTER TABLE audit_entries DISABLE TRIGGER audit_refuse_changes",
    "DROP TRIGGER audit_refuse_changes ON audit_entries",
    "DROP TABLE audit_entries",
    "UPDATE audit_seals SET sealed_at = now()",
    "DELETE FROM audit_seals",
    "TRUNCATE audit_seals",
    "ALTER TABLE audit_seals DISABLE TRIGGER ALL",
    f"INSERT INTO audit_entries {AN_ENTRY}, happened_at) VALUES ({VALUES}, '20000-01-01')",
    f"INSERT INTO audit_entries {AN_ENTRY}, id) OVERRIDING SYSTEM VALUE VALUES ({VALUES}, 99)",
    "INSERT INTO audit_entries (action, who, why, selection, happened_at) VALUES ('x', 'y', '', '{}', 'infinity')",
    "COPY audit_entries (action, who, why, selection, rows, happened_at) FROM STDIN",
    "INSERT INTO outbox_operations (action, who, why, selection, rows) VALUES ('item.stock', 'ann', '', '{}', 1)",
    "SELECT setval('audit_entries_id_seq', 1000000)",
    "ALTER FUNCTION audit_next_seal() RESET search_path",
    "ALTER TABLE audit_seals DISABLE TRIGGER audit_next_seal",
    "UPDATE outbox_operations SET rows = 7",
    "DELETE FROM outbox_operations",
    "CREATE OR REPLACE FUNCTION audit_refuse_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "SET session_replication_role = replica",
)


def documented(language: str) -> Sequence[str]:
    """Return the blocks of code of docs/audit.md in a language."""
    return re.findall(rf"^```{language}\n(.+?)^```", (ROOT / "docs" / "audit.md").read_text(), re.M | re.S)


def grants() -> Sequence[str]:
    (found,) = (block for block in documented("sql") if "CREATE ROLE" in block)
    return [one for one in re.sub(r"--.*", "", found).split(";") if one.strip()]


@pytest.fixture
def as_role(db: Db, settings: Settings) -> Iterator[str]:
    """The URL of the database for the role, which has been granted what the documentation says."""
    with db.begin() as session:
        for statement in grants():
            session.execute(text(statement))
    yield make_url(settings.database_url).set(username=ROLE).render_as_string(hide_password=False)
    with db.begin() as session:
        session.execute(text(f"DROP OWNED BY {ROLE}"))
        session.execute(text(f"DROP ROLE {ROLE}"))


@pytest.fixture
def unprivileged(as_role: str, settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = database.connect(settings.model_copy(update={"database_url": as_role}), connections=2)
    yield database.sessions(engine)
    engine.dispose()


@pytest.mark.parametrize("statement", REFUSED)
def test_the_application_can_not_change_the_audit(db: Db, unprivileged: Db, statement: str) -> None:
    sealed(db)

    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        with unprivileged.begin() as session:
            session.execute(text(statement))


def test_the_application_can_not_end_the_sealing(db: Db, unprivileged: Db) -> None:
    sealed(db)

    with pytest.raises(DBAPIError, match="of the audit is refused"), unprivileged.begin() as session:
        session.execute(text(LAST_SEAL))

    sealed(unprivileged)
    assert verified(db).seals == 2


def test_the_id_and_the_time_of_what_the_application_records_are_those_of_postgresql(db: Db, unprivileged: Db) -> None:
    earlier, later = recorded(db), recorded(unprivileged)

    with db.begin() as session:
        last, first = audit.find(session, audit.Filter(), limit=9)
    assert [last.id, first.id] == later + earlier
    assert first.happened_at and last.happened_at and first.happened_at < last.happened_at


def test_the_application_records_seals_and_verifies(unprivileged: Db) -> None:
    with unprivileged.begin() as session:
        audit.record(session, "item.stock", who="ann")

    assert maintenance.seal_audit(unprivileged, threading.Event()) == 1
    with unprivileged.begin() as session:
        assert audit.verify(session).fault_count == 0


def test_the_application_does_its_work(unprivileged: Db) -> None:
    with unprivileged.begin() as session:
        outbox.register(session, ROUTES.names)

    hold = a_hold(unprivileged, an_item(unprivileged, quantity=3))

    with unprivileged.begin() as session:
        found = reservations.find(session, Filter(), limit=9).reservations
    assert [one.id for one in found] == [hold.id]


@pytest.mark.slow
def test_the_api_and_every_command_work(as_role: str) -> None:
    with serving(DATABASE_URL=as_role) as served:
        for method, path, body in REQUESTS:
            request(served.client, method, path, body)
        made = request(served.client, "POST", "/reservations", {"sku": "MUG", "quantity": 1, "guest": PERSON})
        for method, path, body in REQUESTS_OF_A_RESERVATION:
            request(served.client, method, f"/reservations/{made['id']}{path}", body)

        keys = f"new:{base64.b64encode(bytes(range(32))).decode()},{os.environ['PII_KEYS']}"
        for command in COMMANDS:
            run = run_command(*command.format(id=made["id"]).split(), DATABASE_URL=as_role, PII_KEYS=keys)
            assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"

        recorded = {one["action"] for one in request(served.client, "GET", "/audit?limit=1000", None)["entries"]}
        assert recorded == AUDITED
        assert served.faults() == []


def request(client: httpx.Client, method: str, path: str, body: Any) -> Any:
    response = client.request(method, path, json=body)
    assert response.is_success, f"{method} {path}: {response.text}"
    return response.json()


def test_triggers_are_made_anew_as_it_is_documented(db: Db) -> None:
    (triggers,) = (block for block in documented("sql") if "CREATE OR REPLACE TRIGGER" in block)
    with db.begin() as session:
        for table in ("audit_entries", "audit_seals"):
            session.execute(text(f"DROP TRIGGER audit_refuse_changes ON {table}"))
        session.execute(text("DROP TRIGGER audit_queue_for_seal ON audit_entries"))
        session.execute(text("DROP TRIGGER audit_next_seal ON audit_seals"))
        assert session.execute(audit.MISSING).scalars().all() == [
            "audit_entries: audit_refuse_changes",
            "audit_seals: audit_refuse_changes",
            "audit_entries: audit_queue_for_seal",
            "audit_seals: audit_next_seal",
        ]

        for statement in filter(str.strip, triggers.split(";")):
            session.execute(text(statement))

        assert session.execute(audit.MISSING).scalars().all() == []
