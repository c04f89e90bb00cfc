"""The pipeline: several statements in one round trip, with SQLAlchemy's errors."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg._pipeline_base import BasePipeline
from sqlalchemy import bindparam, func, insert, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from domain.items import items
from domain.runtime.database import connect, driver_of, sessions
from domain.runtime.database_errors import constraint_of, trouble
from domain.runtime.errors import Busy, DatabaseUnavailable
from domain.runtime.pipeline import Query, execute
from domain.runtime.poolers import HAS_TRANSACTION_TIMEOUT
from domain.runtime.settings import Settings
from tests.support.builders import Db, an_item
from tests.support.waiting import wait_until

_NAMED = select(items.c.id, items.c.available_quantity).where(items.c.sku == bindparam("sku"))
_INSERT = insert(items).values(sku=bindparam("sku"), name="Thing")


def test_each_query_sees_what_those_before_it_have_done_and_its_rows_are_returned(db: Db) -> None:
    sku = str(uuid4())
    with db.begin() as session:
        before, _, after = execute(session, (Query(one, {"sku": sku}) for one in (_NAMED, _INSERT, _NAMED)))

    assert list(before) == []
    assert [row.available_quantity for row in after] == [0]


def test_constants_of_a_statement_are_sent_with_its_parameters(db: Db) -> None:
    an_item(db, quantity=3)
    few = select(items.c.sku).where(items.c.available_quantity > 2, items.c.id > bindparam("after")).limit(5)
    with db.begin() as session:
        (rows,) = execute(session, [Query(few, {"after": 0})])

    assert len(rows) == 1


def test_what_was_executed_before_an_error_is_undone_with_the_transaction(db: Db) -> None:
    sku = str(uuid4())
    with pytest.raises(IntegrityError) as caught, db.begin() as session:
        execute(session, [Query(one, {"sku": sku}) for one in (_INSERT, _INSERT, _NAMED)])

    assert constraint_of(caught.value) == "uq_items_sku"
    with db.begin() as session:
        assert list(*execute(session, [Query(_NAMED, {"sku": sku})])) == []


def test_a_lock_that_can_not_be_had_in_time_means_busy(db: Db) -> None:
    an_item(db)
    with db.begin() as holder:
        holder.execute(text("LOCK TABLE items"))
        with pytest.raises(SQLAlchemyError) as caught, db.begin() as session:
            session.execute(text("SET LOCAL lock_timeout = '50ms'"))
            execute(session, [Query(select(1), {}), Query(_NAMED, {"sku": "a"})])

    assert isinstance(trouble(caught.value), Busy)


def test_a_connection_that_is_cut_is_unavailable_and_the_next_one_works(db: Db) -> None:
    with pytest.raises(SQLAlchemyError) as caught, db.begin() as session:
        own = session.execute(select(func.pg_backend_pid())).scalar_one()
        with db.begin() as other:
            other.execute(select(func.pg_terminate_backend(own, 5_000)))
        execute(session, [Query(_NAMED, {"sku": "a"}), Query(_NAMED, {"sku": "b"})])

    assert isinstance(trouble(caught.value), DatabaseUnavailable)
    with db.begin() as session:
        assert len(execute(session, [Query(_NAMED, {"sku": "a"}), Query(_NAMED, {"sku": "b"})])) == 2


@pytest.fixture
def only_one(settings: Settings) -> Iterator[Db]:
    """Sessions that share one connection, as those of a writer do."""
    engine = connect(settings, connections=1, checked=False)
    yield sessions(engine)
    engine.dispose()


@pytest.mark.parametrize("attempt", range(20))
def test_a_connection_that_breaks_between_two_queries_is_replaced(only_one: Db, db: Db, attempt: int) -> None:
    """After a while, so that what it says last is read while the next query is sent, or with the results."""

    def queries(backend: int) -> Iterator[Query]:
        yield Query(_NAMED, {"sku": "a"})
        with db.begin() as other:
            other.execute(select(func.pg_terminate_backend(backend, 5_000 if attempt % 2 else 0)))
        for _ in range(attempt):
            yield Query(_NAMED, {"sku": "a" * 8_000})

    with pytest.raises(SQLAlchemyError) as caught, only_one.begin() as session:
        execute(session, queries(session.execute(select(func.pg_backend_pid())).scalar_one()))
        session.execute(select(1))

    assert isinstance(trouble(caught.value), DatabaseUnavailable)
    with only_one.begin() as session:
        assert session.execute(select(1)).scalar_one() == 1


def test_a_generator_that_fails_while_the_connection_breaks_leaves_no_connection_behind(only_one: Db, db: Db) -> None:
    def queries(backend: int) -> Iterator[Query]:
        yield Query(_NAMED, {"sku": "a"})
        with db.begin() as other:
            other.execute(select(func.pg_terminate_backend(backend, 5_000)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), only_one() as session:
        execute(session, queries(session.execute(select(func.pg_backend_pid())).scalar_one()))

    with only_one.begin() as session:
        assert session.execute(select(1)).scalar_one() == 1


def test_a_pipeline_that_can_not_be_left_is_given_up(only_one: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    """As libpq says if the connection breaks while a result is being read."""

    def fail(*_: object) -> None:
        raise psycopg.OperationalError("cannot exit pipeline mode while busy")

    with pytest.raises(SQLAlchemyError) as caught, only_one.begin() as session, monkeypatch.context() as patch:
        patch.setattr(BasePipeline, "_exit", fail)
        execute(session, [Query(_NAMED, {"sku": "a"})])

    assert isinstance(trouble(caught.value), DatabaseUnavailable)
    with only_one.begin() as session:
        assert session.execute(select(1)).scalar_one() == 1


def is_gone(db: Db, backend: int) -> bool:
    with db.begin() as session:
        found = session.execute(text("SELECT 1 FROM pg_stat_activity WHERE pid = :pid"), {"pid": backend})
        return found.one_or_none() is None


def test_a_process_that_is_frozen_after_a_pipeline_keeps_its_locks_no_longer_than_after_a_statement(
    only_one: Db, db: Db
) -> None:
    with only_one() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '300ms'"))
        (own,), _ = execute(session, [Query(select(func.pg_backend_pid()), {}), Query(_NAMED, {"sku": "a"})])
        backend = own[0]

        wait_until("PostgreSQL ends its transaction", lambda: is_gone(db, backend))

        session.invalidate()


def test_a_transaction_ends_at_postgresql_if_its_process_is_frozen_within_a_pipeline(settings: Settings) -> None:
    engine = connect(settings, connections=1, transaction_seconds=3)
    with sessions(engine)() as session:
        if driver_of(session).info.server_version >= HAS_TRANSACTION_TIMEOUT:
            assert session.execute(text("SHOW transaction_timeout")).scalar_one() == "5s"
    engine.dispose()
