"""The plans of the frequent statements: a large backlog of rows that wait or are processed costs them nothing."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, func, select, text
from sqlalchemy.orm import Session

from domain import outbox, reservations
from domain.outbox import DELIVERED, CommitHorizon, Failed, History, LeasedLane, Outcome
from domain.outbox.delivery.low_watermark import reset_wrong_low_watermarks
from domain.outbox.operations import status
from domain.outbox.operations.explain import explain
from domain.outbox.table import outbox as table
from domain.reservations.expiry import take_back
from domain.runtime.database import connect, sessions
from domain.runtime.settings import Settings
from tests.conftest import empty
from tests.support.builders import ROUTES, Db, an_event, recorded
from tests.support.outbox import SHOP, a_retry_policy, an_aggregate, with_shop

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("a_large_outbox")]

#: Rows of each kind that the statements must not read.
BACKLOG = 100_000

#: Ready rows, all in one lane.
READY = 300

LANE = LeasedLane(
    destination=SHOP,
    number=4,
    epoch=1,
    holder="me",
    probing=False,
    has_due_rows=True,
    newest=2**63 - 1,
    low_watermark=0,
    commit_horizon=0,
    has_probe_lease=False,
    recovered_at=None,
)

#: The pages that are read to find one row: from the root of an index of this size down to the row itself.
DESCENT = 5

#: The pages that are touched to write a row: itself, and each of its indexes.
WRITTEN = 8 * DESCENT

FILL = (
    # The checks of foreign keys would take most of the time.
    "SET LOCAL session_replication_role = replica",
    """
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, available_at, processed_at)
    SELECT uuidv7(), :shop, n % 32, uuidv7(), 'booking.created', '{}',
           CASE WHEN n % 2 = 0 THEN now() + interval '1 hour' END, CASE WHEN n % 2 = 1 THEN now() END
    FROM generate_series(1, 2 * :backlog) AS n
    """,
    """
    INSERT INTO items (sku, name, available_quantity, stock_quantity)
    SELECT 'SKU-' || n, 'Thing', 0, 1000000 FROM generate_series(1, 100) AS n
    """,
    """
    INSERT INTO reservations (id, item_id, quantity, status, expires_at)
    SELECT uuidv7(), 1 + n / 2 % 100, 1, CASE WHEN n % 2 = 0 THEN 'PENDING' ELSE 'CONFIRMED' END,
           now() + interval '1 hour'
    FROM generate_series(1, 2 * :backlog) AS n
    """,
)


TABLES = ("outbox", "outbox_lanes", "reservations", "items")

#: What PostgreSQL knows of the tables: all; nothing; that they had no rows, as after a quiet time.
STATISTICS = {
    "all": [],
    "none": [
        "DELETE FROM pg_statistic WHERE starelid::regclass::text LIKE 'outbox%'",
        "UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relname ~ '^(ix_|pk_)?outbox'",
    ],
    "of no rows": ["UPDATE pg_class SET relpages = 100, reltuples = 0 WHERE relname ~ '^(ix_|pk_)?outbox'"],
}


@dataclass(frozen=True)
class Plan:
    """How a statement was executed: what it scanned, by which indexes, and how many pages it read."""

    scans: frozenset[tuple[str, str]]
    indexes: frozenset[str]
    pages: int


@pytest.fixture(scope="module")
def crowd(engine: Engine) -> Iterator[Engine]:
    """A database with a large backlog, none of it due."""
    empty(engine)
    db = with_shop(sessions(engine))
    with db.begin() as session:
        for statement in FILL:
            session.execute(text(statement), {"shop": SHOP, "backlog": BACKLOG})
    recorded(db, *(an_event(an_aggregate(LANE.number)) for _ in range(READY)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in TABLES:
            connection.execute(text(f"ALTER TABLE {name} SET (autovacuum_enabled = false)"))
        yield engine
        empty(engine)
        for name in TABLES:
            connection.execute(text(f"ALTER TABLE {name} RESET (autovacuum_enabled)"))


@pytest.fixture(scope="module", params=STATISTICS)
def crowded(crowd: Engine, settings: Settings, request: pytest.FixtureRequest) -> Iterator[Db]:
    """The same database, as workers use it, with fresh statistics and with those that PostgreSQL may have instead."""
    with crowd.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in [f"VACUUM ANALYZE {', '.join(TABLES)}", *STATISTICS[request.param]]:
            connection.execute(text(statement))
    workers = connect(settings, connections=2, by_index=True)
    yield sessions(workers)
    workers.dispose()


def claim(session: Session) -> object:
    return outbox.claim(session, [SHOP], "me", CommitHorizon())


def prune(session: Session) -> object:
    return outbox.prune_delivered(session, older_than=timedelta(days=7))


def fetch(session: Session) -> object:
    return outbox.fetch(session, LANE, after=0, limit=READY)


def make_due_rows_ready(session: Session) -> object:
    return outbox.make_due_rows_ready(session, LANE)


def expire(session: Session) -> object:
    return reservations.expire(session, 500, ROUTES)


def take_two_back(session: Session) -> object:
    return take_back(session, {3: 1, 4: 1}, ROUTES)


def read_statuses(session: Session) -> object:
    return status.read_statuses(session)


FREQUENT = [
    (claim, {"ix_outbox_ready", "ix_outbox_waiting_due"}, 2 * 32 * DESCENT),
    (fetch, {"ix_outbox_ready", "ix_outbox_waiting_aggregate"}, READY * DESCENT),
    (make_due_rows_ready, {"ix_outbox_waiting_due"}, 2 * DESCENT),
    (expire, {"ix_reservations_status_expires_at"}, DESCENT),
    (prune, {"ix_outbox_processed_at"}, DESCENT),
    (reset_wrong_low_watermarks, {"ix_outbox_ready"}, 2 * 32 * DESCENT),
    (take_two_back, set(), 2 * DESCENT),
    # Rows are counted in an index, up to a limit, and a page of an index holds a hundred rows or more. Few rows are
    # read themselves.
    (
        read_statuses,
        {"ix_outbox_ready", "ix_outbox_waiting_aggregate", "ix_outbox_dead"},
        status.MAX_COUNTED // 50 + status.OLDEST_READ + READY + 2 * 32 * DESCENT,
    ),
]

#: Makes the backlog of the lane ready, so that its other ready rows are the last of thousands.
READY_BACKLOG = ("UPDATE outbox SET available_at = NULL WHERE lane = 4 AND processed_at IS NULL",)

#: Makes every other hold overdue.
OVERDUE = (
    "UPDATE reservations SET expires_at = now() - interval '1 minute' WHERE item_id > 50 AND status = 'PENDING'",
    "ANALYZE reservations",
)


@pytest.mark.parametrize(("act", "indexes", "pages"), FREQUENT)
def test_a_backlog_costs_nothing(crowded: Db, act: Callable[[Session], object], indexes: set[str], pages: int) -> None:
    plan = executed(crowded, act)

    assert indexes <= plan.indexes
    assert not {("Seq Scan", "outbox"), ("Seq Scan", "reservations")} & plan.scans
    assert plan.pages <= pages


@pytest.mark.parametrize(("act", "indexes"), [(act, indexes) for act, indexes, _ in FREQUENT])
def test_the_plan_is_as_good_when_it_is_made_for_any_parameters(
    crowded: Db, act: Callable[[Session], object], indexes: set[str]
) -> None:
    """After a few executions, a prepared statement is planned once for all parameters."""
    plan = planned(crowded, act)

    assert indexes <= plan.indexes
    assert not {("Seq Scan", "outbox"), ("Seq Scan", "reservations")} & plan.scans


def test_a_fetch_walks_over_no_rows_that_were_fetched_before(crowded: Db) -> None:
    with crowded.begin() as session:
        newest = session.execute(select(func.max(table.c.id))).scalar_one()

    plan = executed(crowded, lambda session: outbox.fetch(session, LANE, after=newest - 1, limit=1), READY_BACKLOG)

    assert plan.pages <= 3 * DESCENT


@pytest.mark.parametrize("outcome", [DELIVERED, Failed("sorry")], ids=["delivered", "failed"])
def test_settled_rows_are_found_by_their_ids(crowded: Db, outcome: Outcome) -> None:
    def settle(session: Session) -> object:
        lane = outbox.claim(session, [SHOP], "me", CommitHorizon())
        assert lane
        deliveries = [(row, outcome) for row in outbox.fetch(session, lane, after=0, limit=READY)]
        return outbox.settle(session, [lane], deliveries, retry_policy=a_retry_policy(), history=History())

    plan = executed(crowded, settle, which=-1)

    assert ("ModifyTable", "outbox") in plan.scans
    assert plan.pages <= READY * 2 * WRITTEN


def test_the_overdue_holds_of_an_item_are_taken_back_without_reading_those_of_other_items(crowded: Db) -> None:
    plan = executed(crowded, take_two_back, given=OVERDUE)

    assert "ix_reservations_item_holds" in plan.indexes
    assert plan.pages <= 2 * DESCENT


def test_the_reason_why_an_event_is_not_delivered_is_found_without_reading_processed_rows(
    crowded: Db, engine: Engine
) -> None:
    """An operator's connection has the defaults of PostgreSQL."""
    operators = sessions(engine)
    with operators() as session:
        newest = session.execute(select(table.c.event_id).order_by(table.c.id.desc()).limit(1)).scalar_one()

    plan = executed(operators, lambda session: explain(session, newest, [SHOP]))

    assert {"ix_outbox_ready", "ix_outbox_waiting_aggregate"} <= plan.indexes
    assert ("Seq Scan", "outbox") not in plan.scans
    assert plan.pages <= 3 * READY * DESCENT


# Beside others, autovacuum may collect statistics in the middle of it; then it runs again by itself.
@pytest.mark.timed
def test_the_rows_of_a_reservation_are_found_without_reading_those_of_others(crowded: Db, engine: Engine) -> None:
    operators = sessions(engine)
    with operators() as session:
        newest = session.execute(select(table.c.aggregate_id).order_by(table.c.id.desc()).limit(1)).scalar_one()

    plan = executed(operators, lambda session: explain(session, newest, [SHOP]), which=1)

    assert {"ix_outbox_ready", "ix_outbox_waiting_aggregate", "ix_outbox_ended_aggregate"} <= plan.indexes
    assert ("Seq Scan", "outbox") not in plan.scans
    # Those that wait are in the order of their destinations, so the index of waiting rows is read from end to end.
    assert plan.pages <= BACKLOG // 50 + 3 * READY * DESCENT


def test_a_claim_reads_the_lanes_from_end_to_end_and_not_by_an_index(crowded: Db) -> None:
    """Under an old snapshot the versions of the lanes pile up, and an index would lead from each one to the next."""
    plan = executed(crowded, claim)

    assert ("Seq Scan", "outbox_lanes") in plan.scans


def executed(db: Db, act: Callable[[Session], object], given: Sequence[str] = (), which: int = 0) -> Plan:
    """Explain the first statement of `act`, or another one, while it is executed once more. Roll everything back."""
    options, statement, parameters = emitted(db, act, which)
    with db() as session:
        for change in given:
            session.execute(text(change))
        for option in options:
            session.connection().exec_driver_sql(*option)
        explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        ((((root,),)),) = session.connection().exec_driver_sql(explained, parameters).all()
        session.rollback()
    return read(root["Plan"])


def planned(db: Db, act: Callable[[Session], object]) -> Plan:
    """Plan the first statement of `act` without knowing its parameters."""
    options, statement, _ = emitted(db, act)
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    for place, name in enumerate(names, start=1):
        statement = statement.replace(f"%({name})s", f"${place}")
    with db() as session:
        for option in options:
            session.connection().exec_driver_sql(*option)
        explained = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement.replace('%%', '%')}"
        ((((root,),)),) = session.connection().exec_driver_sql(explained).all()
    return read(root["Plan"])


Emitted = tuple[Sequence[tuple[str, Any]], str, Any]


def emitted(db: Db, act: Callable[[Session], object], which: int = 0) -> Emitted:
    """Return the first statement that `act` sends to the database, or another one, and its parameters. Roll it back.

    Before it come the options of PostgreSQL that `act` sets, with their parameters.
    """
    seen: list[tuple[str, Any]] = []

    def note(_: Connection, cursor: object, statement: str, parameters: Any, *__: object) -> None:
        seen.append((statement, parameters))

    with db() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", note)
        act(session)
        session.rollback()
    options = [one for one in seen if one[0].startswith(("SET LOCAL", "SELECT set_config"))]
    return options, *[one for one in seen if one not in options][which]


def read(root: dict[str, Any]) -> Plan:
    nodes = list(walk(root))
    return Plan(
        scans=frozenset((node["Node Type"], node.get("Relation Name", "")) for node in nodes),
        indexes=frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
        pages=root.get("Shared Hit Blocks", 0) + root.get("Shared Read Blocks", 0),
    )


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)
