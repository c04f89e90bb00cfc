"""Verifying the audit: whatever was changed or deleted after it was sealed shows, and so does a chain made anew."""

import pytest
from sqlalchemy import text

from domain.access import audit
from domain.access.audit import verification
from domain.access.audit.chain import BEGINNING, hash_of
from tests.support.audit import last_hash, recorded, seal, sealed, tamper, verified
from tests.support.builders import Db

#: What is done to the audit after seals of the entries (1, 2), (3, 4) and (5, 6), and what is said of it.
TAMPERING = {
    "another name": ("UPDATE audit_entries SET who = 'ben' WHERE id = 3", ["entry 3 was changed"]),
    "another reason": ("UPDATE audit_entries SET why = 'none' WHERE id = 3", ["entry 3 was changed"]),
    "another action": ("UPDATE audit_entries SET action = 'replay' WHERE id = 3", ["entry 3 was changed"]),
    "another number": ("UPDATE audit_entries SET rows = 2 WHERE id = 3", ["entry 3 was changed"]),
    "another subject": ("UPDATE audit_entries SET subject = NULL WHERE id = 3", ["entry 3 was changed"]),
    "another operation": ("UPDATE audit_entries SET operation_id = 1 WHERE id = 3", ["entry 3 was changed"]),
    "another selection": (
        """UPDATE audit_entries SET selection = '{"a": 1e0}' WHERE id = 3""",
        ["entry 3 was changed"],
    ),
    "another time": (
        "UPDATE audit_entries SET happened_at = happened_at + interval '1 us' WHERE id = 3",
        ["entry 3 was changed"],
    ),
    "no time": ("UPDATE audit_entries SET happened_at = 'infinity' WHERE id = 3", ["entry 3 was changed"]),
    "a deleted entry": ("DELETE FROM audit_entries WHERE id = 4", ["entry 4 was deleted"]),
    "two exchanged entries": (
        "UPDATE audit_entries SET subject = 'item:' || CASE subject WHEN 'item:0' THEN 1 ELSE 0 END WHERE id IN (3, 4)",
        ["entry 3 was changed", "entry 4 was changed"],
    ),
    "a seal of fewer entries": (
        "UPDATE audit_seals SET entry_ids = '{3}', digests = substr(digests, 1, 32) WHERE number = 2",
        ["seal 2 was changed"],
    ),
    "a seal of another time": (
        "UPDATE audit_seals SET sealed_at = sealed_at - interval '1 day' WHERE number = 2",
        ["seal 2 was changed"],
    ),
    "a seal without a time": (
        "UPDATE audit_seals SET sealed_at = '-infinity' WHERE number = 2",
        ["seal 2 was changed"],
    ),
    "another hash": ("UPDATE audit_seals SET hash = sha256('x') WHERE number = 2", ["seal 2 was changed"]),
    "a hash that is none": ("UPDATE audit_seals SET hash = '' WHERE number = 3", ["seal 3 was changed"]),
    "the first seal deleted": ("DELETE FROM audit_seals WHERE number = 1", ["seal 1 was deleted"]),
    "seals deleted": ("DELETE FROM audit_seals WHERE number < 3", ["seals 1 to 2 were deleted"]),
    "an entry and its digest": (
        "UPDATE audit_seals SET digests = overlay(digests PLACING sha256('x') FROM 33) WHERE number = 2",
        ["seal 2 was changed", "entry 4 was changed"],
    ),
}

SETTINGS = (
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'iso_8601'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
)


@pytest.mark.parametrize(("statement", "faults"), TAMPERING.values(), ids=TAMPERING)
def test_what_was_changed_or_deleted_is_named_and_nothing_else(db: Db, statement: str, faults: list[str]) -> None:
    for _ in range(3):
        sealed(db, 2)

    tamper(db, statement)

    assert list(verified(db).faults) == faults


def test_an_entry_that_was_deleted_before_it_was_sealed_shows(db: Db) -> None:
    first, _ = recorded(db, 2)
    tamper(db, f"DELETE FROM audit_entries WHERE id = {first}")
    seal(db)

    assert list(verified(db).faults) == [f"entry {first} was deleted"]


def test_a_hash_that_was_kept_is_in_the_chain_whatever_is_added(db: Db) -> None:
    sealed(db, 2)
    kept = last_hash(db)
    sealed(db, 2)

    assert verified(db, kept).is_met
    assert verified(db, last_hash(db)).is_met
    assert verified(db).hash == last_hash(db)
    assert not verified(db, kept[::-1]).is_met


def test_an_end_that_was_cut_off_shows_by_a_hash_that_was_kept(db: Db) -> None:
    sealed(db)
    last = sealed(db)
    kept = last_hash(db)

    tamper(db, "DELETE FROM audit_seals WHERE number = 2", f"DELETE FROM audit_entries WHERE id = {last[0]}")

    assert (verified(db, kept).fault_count, verified(db, kept).is_met) == (0, False)


def test_a_chain_that_was_made_anew_shows_by_a_hash_that_was_kept(db: Db) -> None:
    (entry,) = sealed(db)
    kept = last_hash(db)

    tamper(
        db,
        "UPDATE audit_entries SET who = 'ben'",
        "DELETE FROM audit_seals",
        f"INSERT INTO audit_unsealed VALUES ({entry})",
    )
    seal(db)

    assert (verified(db, kept).fault_count, verified(db, kept).is_met) == (0, False)


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_a_session_changes_what_is_hashed(db: Db, setting: str) -> None:
    sealed(db, 2)

    with db.begin() as session:
        session.execute(text(f"SET LOCAL {setting}"))
        assert audit.verify(session).fault_count == 0


def test_the_documented_hash_can_be_computed_in_postgresql_alone(db: Db) -> None:
    sealed(db, 2)
    kept = last_hash(db)
    with db.begin() as session:
        row = session.execute(
            text("""
                SELECT number, entry_ids, trunc(extract(epoch FROM sealed_at) * 1000000)::text AS at,
                    (SELECT string_agg(sha256(convert_to(jsonb_build_array(
                        id, trunc(extract(epoch FROM happened_at) * 1000000)::text, who, action, subject, why,
                        selection, rows, operation_id)::text, 'UTF8')), '' ORDER BY place)
                     FROM unnest(entry_ids) WITH ORDINALITY AS sealed (entry_id, place)
                     JOIN audit_entries ON id = entry_id) AS digests
                FROM audit_seals
            """)
        ).one()

    assert hash_of(BEGINNING, row.number, row.at, row.entry_ids, row.digests).hex() == kept


def test_seals_are_read_page_by_page(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (2, 3, 1, 1):
        sealed(db, count)
    tamper(db, "UPDATE audit_entries SET who = 'ben' WHERE id IN (1, 7)")

    for limit in (1, 2, 3, 4):
        monkeypatch.setattr(verification, "_PAGE", verification.page_of(limit))
        assert list(verified(db).faults) == ["entry 1 was changed", "entry 7 was changed"]
        assert (verified(db).seals, verified(db).entries) == (4, 7)
