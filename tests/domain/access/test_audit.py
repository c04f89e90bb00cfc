"""The audit: it is only added to, nobody waits for anybody else, and every entry is sealed once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from domain.access import audit
from domain.access.audit import Filter, audit_seals, audit_unsealed
from domain.access.audit.seals import SEAL_SIZE
from domain.runtime.database import lock_at_most
from domain.runtime.errors import Invalid
from tests.support.audit import TABLES, recorded, seal, sealed, verified
from tests.support.builders import Db
from worker import maintenance

CHANGES = ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET {} = {}", "UPDATE {} SET {} = {} WHERE false"]


def seals(db: Db) -> list[list[int]]:
    """Return the entries of each seal."""
    with db.begin() as session:
        return list(session.execute(select(audit_seals.c.entry_ids).order_by(audit_seals.c.number)).scalars())


def waiting(db: Db) -> list[int]:
    with db.begin() as session:
        return list(session.execute(select(audit_unsealed.c.entry_id).order_by(audit_unsealed.c.entry_id)).scalars())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("mode", ["origin", "replica"])
@pytest.mark.parametrize(
    "change", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET {} = {}", "UPDATE {} SET {} = {} WHERE false"]
)
def test_nobody_changes_or_deletes_what_is_in_the_audit(db: Db, table: str, mode: str, change: str) -> None:
    sealed(db)
    before = seals(db)
    column = "rows" if table == "audit_entries" else "sealed_at"

    with pytest.raises(DBAPIError, match="the audit is only added to"):
        with db.begin() as session:
            session.execute(text(f"SET LOCAL session_replication_role = {mode}"))
            session.execute(text(change.format(table, column, column)))

    assert seals(db) == before
    assert verified(db).fault_count == 0


def test_an_entry_is_there_if_what_it_tells_of_is(db: Db) -> None:
    with pytest.raises(ZeroDivisionError):
        with db.begin() as session:
            audit.record(session, "item.stock", who="ann")
            raise ZeroDivisionError

    assert waiting(db) == []
    with db.begin() as session:
        assert audit.find(session, Filter(), limit=9) == []


@pytest.mark.parametrize("who", ["", "  ", "a" * 256])
def test_an_entry_needs_somebody_who_did_it(db: Db, who: str) -> None:
    with pytest.raises(Invalid, match="who"):
        with db.begin() as session:
            audit.record(session, "item.stock", who=who)


def test_what_is_committed_is_sealed_once(db: Db) -> None:
    first = sealed(db, 3)
    assert seal(db) == 0
    second = sealed(db, 2)

    assert seals(db) == [first, second]
    assert waiting(db) == []
    assert (verified(db).seals, verified(db).entries, verified(db).fault_count) == (2, 5, 0)


def test_an_entry_that_commits_late_is_sealed_after_higher_ones(db: Db) -> None:
    with db.begin() as late:
        late_id = audit.record(late, "item.stock", who="late")
        higher = sealed(db, 2)
        assert min(higher) > late_id
    seal(db)

    assert seals(db) == [higher, [late_id]]
    assert verified(db).fault_count == 0


def test_who_records_waits_neither_for_a_sealer_nor_for_others_who_record(db: Db) -> None:
    recorded(db)
    with db.begin() as sealer, db.begin() as frozen:
        assert audit.seal(sealer) == 1
        audit.record(frozen, "item.stock", who="frozen")

        with db.begin() as session:
            lock_at_most(session, 1)
            audit.record(session, "item.stock", who="ann")

    assert len(waiting(db)) == 2


def test_a_sealer_leaves_the_work_to_another_one_that_seals_at_the_same_time(db: Db) -> None:
    ids = recorded(db, 2)
    with db.begin() as first:
        assert audit.seal(first) == 2
        recorded(db)
        assert seal(db) == 0
    seal(db)

    assert [len(one) for one in seals(db)] == [2, 1]
    assert seals(db)[0] == ids


def test_while_many_record_and_several_seal_every_entry_is_sealed_once(db: Db) -> None:
    stopping = threading.Event()

    def keep_sealing() -> None:
        while not stopping.is_set():
            maintenance.seal_audit(db, stopping)

    with ThreadPoolExecutor(9) as threads:
        sealers = [threads.submit(keep_sealing) for _ in range(3)]
        writers = [threads.submit(recorded, db, 50) for _ in range(6)]
        ids = sorted(one for writer in writers for one in writer.result())
        stopping.set()
        for sealer in sealers:
            sealer.result()
    maintenance.seal_audit(db, threading.Event())

    assert sorted(one for seal in seals(db) for one in seal) == ids
    assert waiting(db) == []
    assert verified(db).fault_count == 0


def test_maintenance_seals_all_that_waits_in_seals_of_a_size(db: Db) -> None:
    with db.begin() as session:
        session.execute(
            text(
                "INSERT INTO audit_entries (action, who, why, selection)"
                " SELECT 'replay', 'ann', '', '{}' FROM generate_series(1, :count)"
            ),
            {"count": SEAL_SIZE + 1},
        )

    assert maintenance.seal_audit(db, threading.Event()) == SEAL_SIZE + 1
    assert [len(one) for one in seals(db)] == [SEAL_SIZE, 1]
    assert maintenance.seal_audit(db, threading.Event()) == 0


def test_entries_are_found_by_what_they_tell_the_newest_first(db: Db) -> None:
    ann, (ben, *_) = recorded(db, 3), recorded(db, 2, who="ben")

    def found(limit: int = 9, before: int | None = None, **wanted: Any) -> list[int]:
        with db.begin() as session:
            return [one.id for one in audit.find(session, Filter(**wanted), limit=limit, before=before)]

    assert found(who="ann") == [*reversed(ann)]
    assert found(subject="item:0") == [ben, ann[0]]
    assert found(limit=2, before=ann[2]) == [ann[1], ann[0]]
    assert found(action="replay") == []
