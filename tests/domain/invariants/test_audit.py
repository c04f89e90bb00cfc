"""The invariants of the audit: it is as it was sealed, all of it is sealed, and the triggers are there."""

import pytest
from sqlalchemy import text

from domain.access import audit
from domain.invariants.audit import INVARIANTS
from tests.support.audit import sealed, tamper
from tests.support.builders import Db
from tests.support.invariants import Violation, execute, violations

CHAIN, LOST, UNSEALED, TRIGGERS = (invariant.title for invariant in INVARIANTS)

A_SEAL_OF_NOTHING = """
    INSERT INTO audit_seals (number, entry_ids, digests, sealed_at, hash)
    VALUES (1, '{4711}', sha256(''), now(), sha256(''))
"""
AN_ENTRY = "INSERT INTO audit_entries (action, who, why, selection, happened_at) VALUES ('x', 'ann', '', '{}', now() - "

VIOLATIONS: list[Violation] = [
    (CHAIN, A_SEAL_OF_NOTHING),
    (LOST, f"DO $$ BEGIN {AN_ENTRY} interval '1 s'); DELETE FROM audit_unsealed; END $$"),
    (UNSEALED, f"{AN_ENTRY} interval '121 s')"),
    (TRIGGERS, "ALTER TABLE audit_seals ENABLE TRIGGER audit_refuse_changes"),
]

REPLACED = """
    DO $$ BEGIN
        CREATE OR REPLACE TRIGGER audit_refuse_changes BEFORE {when} ON audit_entries
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_changes();
        ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_refuse_changes;
    END $$
"""

WITHOUT_TRIGGERS = (
    "ALTER TABLE audit_entries DISABLE TRIGGER audit_refuse_changes",
    "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
    "ALTER TABLE audit_entries DISABLE TRIGGER audit_queue_for_seal",
    *(REPLACED.format(when=when) for when in ("UPDATE OR TRUNCATE", "UPDATE OF rows OR DELETE OR TRUNCATE")),
    "CREATE OR REPLACE FUNCTION audit_refuse_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "ALTER TRIGGER audit_refuse_changes ON audit_entries RENAME TO another",
    "ALTER TABLE audit_seals DISABLE TRIGGER audit_next_seal",
    "ALTER FUNCTION audit_queue_for_seal() RESET search_path",
    "ALTER FUNCTION audit_next_seal() SET search_path = pg_temp, public",
)


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]


def test_an_audit_that_is_added_to_and_sealed_violates_nothing(used: Db) -> None:
    sealed(used, 3)
    execute(used, f"{AN_ENTRY} interval '1 s')")

    assert violations(used) == {}


def test_deleted_seals_at_the_end_leave_entries_that_no_seal_covers(used: Db) -> None:
    sealed(used, 3)
    sealed(used, 2)
    tamper(used, "DELETE FROM audit_seals WHERE number = 2")

    assert violations(used) == {LOST: 2}


@pytest.mark.parametrize("statement", WITHOUT_TRIGGERS)
def test_a_trigger_that_refuses_less_is_found(used: Db, statement: str) -> None:
    with used() as session:
        session.execute(text(statement))
        found = session.execute(audit.MISSING).scalars().all()
        session.rollback()

    assert found
