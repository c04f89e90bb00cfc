"""PostgreSQL: errors that pass and errors that do not, limits on waiting, bulk writing and tables from arrays."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import BigInteger, Boolean, DateTime, Text, Uuid, func, select, text
from sqlalchemy.exc import DataError, SQLAlchemyError

from domain import items, outbox
from domain.outbox.table import outbox as outbox_table
from domain.runtime import database
from domain.runtime.database import arrays, lists
from domain.runtime.database_errors import trouble
from domain.runtime.errors import Busy, DatabaseUnavailable, Unavailable
from domain.runtime.settings import Settings
from tests.support.builders import Db, an_event, an_item, recorded, routes_of


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("55P03", Busy),  # a lock could not be had
        ("40P01", Busy),  # a deadlock
        ("40001", Busy),  # a serialization failure
        ("53100", DatabaseUnavailable),  # a full disk
        ("53300", DatabaseUnavailable),  # too many connections
        ("57P01", DatabaseUnavailable),  # a shutdown
        ("57P03", DatabaseUnavailable),  # starting up
        ("08006", DatabaseUnavailable),  # a connection that broke
        ("58030", DatabaseUnavailable),  # a disk that fails to read or write
        ("58P01", DatabaseUnavailable),  # a file that is missing
        ("25006", DatabaseUnavailable),  # a standby
        ("22P02", None),
        ("23505", None),
        ("42P01", None),
    ],
)
def test_an_error_that_passes_differs_from_one_that_does_not(
    db: Db, code: str, meaning: type[Unavailable] | None
) -> None:
    with pytest.raises(SQLAlchemyError) as caught, db.begin() as session:
        session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$"))

    found = trouble(caught.value)
    assert found is None if meaning is None else isinstance(found, meaning)


def test_an_error_of_the_program_is_no_trouble_of_the_database() -> None:
    assert trouble(ValueError("x")) is None


def test_a_lock_that_can_not_be_had_in_time_means_busy(db: Db) -> None:
    item = an_item(db)
    with db.begin() as holder:
        items.lock(holder, [item.id])
        with pytest.raises(SQLAlchemyError) as caught, db.begin() as waiter:
            waiter.execute(text("SET LOCAL lock_timeout = '50ms'"))
            items.lock(waiter, [item.id])

    assert isinstance(trouble(caught.value), Busy)


def test_no_free_connection_means_busy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CONNECT_TIMEOUT_SECONDS", 1)
    engine = database.connect(settings, connections=1)
    with engine.connect(), pytest.raises(SQLAlchemyError) as caught:
        engine.connect()
    engine.dispose()

    assert isinstance(trouble(caught.value), Busy)


def test_a_server_that_does_not_run_is_unavailable(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/nothing"})
    engine = database.connect(elsewhere, connections=1)

    with pytest.raises(SQLAlchemyError) as caught:
        engine.connect()

    assert isinstance(trouble(caught.value), DatabaseUnavailable)


def test_a_connection_that_is_cut_is_unavailable_and_the_next_one_works(db: Db) -> None:
    with pytest.raises(SQLAlchemyError) as caught, db.begin() as session:
        own = session.execute(select(func.pg_backend_pid())).scalar_one()
        with db.begin() as other:
            other.execute(select(func.pg_terminate_backend(own, 5_000)))
        outbox.record(session, [an_event()], routes_of(db))

    assert isinstance(trouble(caught.value), DatabaseUnavailable)
    recorded(db, an_event())


@pytest.mark.parametrize(("column", "value"), [("type", "x" * 51), ("payload", "no JSON")])
def test_a_value_that_copy_can_not_store_raises_an_error_of_sqlalchemy(db: Db, column: str, value: str) -> None:
    row = {"event_id": uuid4(), "destination": "events", "lane": 0, "aggregate_id": uuid4()}
    row |= {"type": "booking.created", "payload": "{}", column: value}

    with pytest.raises(DataError), db.begin() as session:
        database.copy(session, outbox_table, list(row), [list(row.values())])


def test_a_lock_that_copy_can_not_have_in_time_means_busy(db: Db) -> None:
    with db.begin() as holder:
        holder.execute(text("LOCK TABLE outbox IN SHARE MODE"))
        with pytest.raises(SQLAlchemyError) as caught, db.begin() as session:
            session.execute(text("SET LOCAL lock_timeout = '50ms'"))
            outbox.record(session, [an_event()], routes_of(db))

    assert isinstance(trouble(caught.value), Busy)


def test_waiting_for_a_lock_and_idling_in_a_transaction_have_limits(settings: Settings) -> None:
    engine = database.connect(settings, connections=1)
    with engine.connect() as connection:
        shown = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in LIMITS]
    engine.dispose()

    assert dict(zip(LIMITS, shown, strict=True)) == LIMITS


LIMITS = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "5s", "timezone": "UTC"}


def test_the_clock_advances_within_a_transaction(db: Db) -> None:
    with db.begin() as session:
        assert database.now(session) < database.now(session)


GIVEN = arrays("given", id=Uuid, quantity=BigInteger, note=Text, is_new=Boolean, since=DateTime(timezone=True))


def test_arrays_make_a_table_whose_rows_come_from_lists(db: Db) -> None:
    ids: list[UUID] = [uuid4(), uuid4(), uuid4()]
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    parameters = lists(
        GIVEN,
        id=ids,
        quantity=[1, 2**62, -3],
        note=['NULL, "quoted", {braces}, back\\slash', None, ""],
        is_new=[True, False, None],
        since=[noon, None, noon],
    )

    with db.begin() as session:
        found = session.execute(select(GIVEN), parameters).all()

    assert found == [
        (ids[0], 1, 'NULL, "quoted", {braces}, back\\slash', True, noon),
        (ids[1], 2**62, None, False, None),
        (ids[2], -3, "", None, noon),
    ]


def test_a_table_of_empty_lists_has_no_rows(db: Db) -> None:
    with db.begin() as session:
        empty = lists(GIVEN, id=[], quantity=[], note=[], is_new=[], since=[])
        assert session.execute(select(GIVEN), empty).all() == []


def test_a_statement_has_one_parameter_for_each_column_however_many_rows_there_are() -> None:
    parameters = lists(GIVEN, id=[], quantity=[], note=[], is_new=[], since=[])

    assert select(GIVEN).compile().params.keys() == parameters.keys()
    assert parameters.keys() == {"given_id", "given_quantity", "given_note", "given_is_new", "given_since"}


def test_two_tables_of_arrays_may_be_in_one_statement(db: Db) -> None:
    other = arrays("other", quantity=BigInteger, note=Text)
    joined = select(GIVEN.c.note, other.c.note).join_from(GIVEN, other, GIVEN.c.quantity == other.c.quantity)
    nothing = [None, None]
    first = lists(GIVEN, id=nothing, quantity=[1, 2], note=["one", "two"], is_new=nothing, since=nothing)
    second = lists(other, quantity=[2], note=["zwei"])

    with db.begin() as session:
        found = session.execute(joined, first | second).all()

    assert found == [("two", "zwei")]
