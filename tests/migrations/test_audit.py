"""Migration 0017: the entries of operators are carried over and sealed, and earlier code can still record and add.

Migration 0019: what is not of Holdfast is refused, and what is there already hinders nothing.
"""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.access import audit
from domain.runtime import database
from domain.runtime.settings import Settings
from tests.migrations.databases import before, connected, downgrade, read, upgrade

pytestmark = pytest.mark.slow

RECORD = """
    INSERT INTO outbox_operations (action, who, why, selection, rows)
    VALUES ('replay', :who, 'OPS-7', '{"among": "dead"}', 500) RETURNING id
"""

#: What code of earlier releases does with the second batch of an operation.
ADD_ROWS = "UPDATE outbox_operations SET rows = outbox_operations.rows + 7 WHERE outbox_operations.id = :id"

ENTRIES = "SELECT id, who, why, selection, rows, operation_id FROM audit_entries ORDER BY id"


def record(url: str, who: str = "ann") -> int:
    with connected(url) as connection:
        number: int = connection.execute(text(RECORD), {"who": who}).scalar_one()
    return number


def seal(url: str) -> list[int]:
    """Seal what waits, and return it."""
    engine = database.connect(Settings.model_validate({"DATABASE_URL": url}), connections=1)
    with database.sessions(engine).begin() as session:
        assert audit.seal(session)
        assert audit.verify(session).fault_count == 0
    engine.dispose()
    return list(read(url, "SELECT entry_ids FROM audit_seals ORDER BY number DESC LIMIT 1")[0][0])


def test_the_entries_of_operators_are_carried_over_and_sealed(url: str) -> None:
    upgrade(url, before("0017"))
    ids = [record(url), record(url, "ben")]

    upgrade(url, "0017")

    assert read(url, ENTRIES) == [
        (one, who, "OPS-7", {"among": "dead"}, 500, None) for one, who in zip(ids, ("ann", "ben"), strict=True)
    ]
    assert seal(url) == ids


def test_earlier_code_records_and_adds_rows_while_the_release_is_rolled_out(url: str) -> None:
    upgrade(url, before("0017"))
    begun = record(url)
    upgrade(url, "0017")

    recorded = record(url, "ben")
    with connected(url) as connection:
        for one in (begun, recorded):
            connection.execute(text(ADD_ROWS), {"id": one})

    assert [(row.who, row.rows, row.operation_id) for row in read(url, ENTRIES)] == [
        ("ann", 500, None),
        ("ben", 500, None),
        ("ann", 7, begun),
        ("ben", 7, recorded),
    ]
    assert len(seal(url)) == 4


@pytest.mark.parametrize("change", ["UPDATE outbox_operations SET who = 'eve'", "DELETE FROM outbox_operations"])
def test_earlier_code_changes_nothing_else(url: str, change: str) -> None:
    upgrade(url, "0017")
    record(url)

    with connected(url) as connection, pytest.raises(DBAPIError, match="the audit is only added to"):
        connection.execute(text(change))


def test_going_back_keeps_the_entries_and_the_next_migration_seals_them_anew(url: str) -> None:
    upgrade(url, "0017")
    recorded = record(url)
    seal(url)

    downgrade(url, before("0017"))
    with connected(url) as connection:
        connection.execute(text(ADD_ROWS), {"id": recorded})
    upgrade(url, "0017")

    assert [(row.id, row.rows) for row in read(url, ENTRIES)] == [(recorded, 507)]
    assert seal(url) == [recorded]


def test_the_triggers_refuse_to_everybody_from_the_migration_on(url: str) -> None:
    upgrade(url, "0017")
    record(url)

    with connected(url) as connection:
        connection.execute(text("SET session_replication_role = replica"))
        with pytest.raises(DBAPIError, match="the audit is only added to"):
            connection.execute(text("DELETE FROM audit_entries"))


AN_ARRAY = "INSERT INTO audit_entries (action, who, why, selection) VALUES ('replay', 'eve', '', '[1]')"


def test_all_triggers_are_there_and_find_their_own_tables_after_the_last_migration(url: str) -> None:
    upgrade(url)

    with connected(url) as connection:
        assert connection.execute(audit.MISSING).all() == []


def test_a_selection_that_is_no_object_is_refused_and_one_that_is_there_hinders_no_migration(url: str) -> None:
    upgrade(url, before("0019"))
    with connected(url) as connection:
        connection.execute(text(AN_ARRAY))

    upgrade(url, "0019")

    with connected(url) as connection, pytest.raises(DBAPIError, match="selection_is_object"):
        connection.execute(text(AN_ARRAY))
    assert record(url)


def test_earlier_code_seals_and_adds_rows_after_the_last_migration(url: str) -> None:
    upgrade(url)
    recorded = record(url)
    with connected(url) as connection:
        connection.execute(text(ADD_ROWS), {"id": recorded})

    assert len(seal(url)) == 2
    record(url)
    assert len(seal(url)) == 1


def test_a_schema_of_another_name_has_the_same_triggers(url: str) -> None:
    with connected(url) as connection:
        connection.execute(text('CREATE SCHEMA "Hold fast"'))
    elsewhere = f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D%22Hold%5C%20fast%22"

    upgrade(elsewhere)

    assert record(elsewhere) and len(seal(elsewhere)) == 1
    with connected(elsewhere) as connection:
        assert connection.execute(audit.MISSING).all() == []
