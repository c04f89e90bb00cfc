"""What somebody writes into the audit past Holdfast hides nothing else from readers, and does not end the sealing."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.access import audit
from domain.access.audit import Filter, RecordedEntry
from tests.support.audit import FORGED, forge, recorded, seal, sealed, tamper, verified
from tests.support.builders import Db

A_SEAL = "INSERT INTO audit_seals (number, entry_ids, digests, sealed_at, hash) VALUES "
A_HASH = "sha256('')"

WRONG_SEALS = {
    "far ahead": f"(9223372036854775807, '{{1}}', {A_HASH}, now(), {A_HASH})",
    "one left out": f"(3, '{{1}}', {A_HASH}, now(), {A_HASH})",
    "before the first": f"(0, '{{1}}', {A_HASH}, now(), {A_HASH})",
    "of nothing": f"(2, '{{}}', '', now(), {A_HASH})",
    "of an array of arrays": f"(2, '{{{{1}}}}', {A_HASH}, now(), {A_HASH})",
    "too few digests": f"(2, '{{1,2}}', {A_HASH}, now(), {A_HASH})",
    "no hash": f"(2, '{{1}}', {A_HASH}, now(), '')",
}


def found(db: Db) -> list[RecordedEntry]:
    with db.begin() as session:
        return list(audit.find(session, Filter(), limit=9))


@pytest.mark.parametrize("kind", FORGED)
def test_an_entry_that_can_not_be_read_is_shown_as_far_as_it_can(db: Db, kind: str) -> None:
    (before,) = recorded(db)
    forge(db, kind)
    (after,) = recorded(db)

    later, forged, earlier = found(db)

    assert (earlier.id, later.id) == (before, after)
    assert earlier.unreadable is later.unreadable is None
    assert (forged.who, forged.action) == ("eve", "replay")
    assert (forged.happened_at is None) == ("time" in kind)
    assert (forged.unreadable is None) == (kind in ("depth", "number"))


def test_what_can_not_be_read_of_an_entry_is_named(db: Db) -> None:
    forge(db, "time")

    (forged,) = found(db)

    assert "its time is 20000-01-01 00:00:00+00" in (forged.unreadable or "")


@pytest.mark.parametrize("written", ["[1]", "7", "null"])
def test_a_selection_that_is_no_object_is_refused_and_an_old_one_is_named(db: Db, written: str) -> None:
    entry = f"INSERT INTO audit_entries (action, who, why, selection) VALUES ('replay', 'eve', '', '{written}')"
    with pytest.raises(DBAPIError, match="selection_is_object"), db.begin() as session:
        session.execute(text(entry))

    with db() as session:
        session.execute(text("ALTER TABLE audit_entries DROP CONSTRAINT ck_audit_entries_selection_is_object"))
        session.execute(text(entry))
        (old,) = audit.find(session, Filter(), limit=9)
        session.rollback()

    assert (old.selection, old.who) == ({}, "eve")
    assert "its selection is no JSON object" in (old.unreadable or "")


def test_a_reason_without_end_is_cut(db: Db) -> None:
    with db.begin() as session:
        long = "INSERT INTO audit_entries (action, who, why, selection) VALUES ('x', 'eve', repeat('y', 2000000), '{}')"
        session.execute(text(long))

    (forged,) = found(db)

    assert len(forged.why) == audit.WHY_LENGTH
    assert "its reason has 2,000,000 characters" in (forged.unreadable or "")


@pytest.mark.parametrize("kind", FORGED)
def test_what_is_forged_is_sealed_and_verified_like_the_rest(db: Db, kind: str) -> None:
    forge(db, kind)
    sealed(db)

    assert (verified(db).entries, verified(db).fault_count) == (2, 0)


@pytest.mark.parametrize("values", WRONG_SEALS.values(), ids=WRONG_SEALS)
def test_a_seal_that_is_not_the_next_one_is_refused_and_sealing_goes_on(db: Db, values: str) -> None:
    sealed(db)

    with pytest.raises(DBAPIError, match=r"seal -?[0-9]+ of the audit is refused"), db.begin() as session:
        session.execute(text(A_SEAL + values))

    sealed(db)
    assert (verified(db).seals, verified(db).fault_count) == (2, 0)


def test_a_seal_of_earlier_times_that_is_no_seal_is_reported(db: Db) -> None:
    sealed(db)
    tamper(
        db,
        "ALTER TABLE audit_seals DISABLE TRIGGER audit_next_seal",
        A_SEAL + WRONG_SEALS["of an array of arrays"],
        "ALTER TABLE audit_seals ENABLE TRIGGER audit_next_seal",
    )

    assert verified(db).faults == ["seal 2 was changed"]


def test_a_temporary_table_hides_no_entry_from_the_sealer(db: Db) -> None:
    with db() as session:
        session.execute(text("CREATE TEMP TABLE audit_unsealed (entry_id bigint PRIMARY KEY) ON COMMIT DROP"))
        session.execute(text("CREATE TEMP TABLE audit_seals (number bigint) ON COMMIT DROP"))
        audit.record(session, "item.stock", who="ann")
        session.commit()

    assert seal(db) == 1
    assert verified(db).fault_count == 0
