"""The plans of lists: of a million reservations, as many are read as a page shows, whatever the statistics say."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, combinations, product
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from deploy.embedded import PostgreSQL
from domain import items, reservations
from domain.access import Reach
from domain.reservations import Filter, Window
from domain.reservations.durations import CLASSES
from domain.reservations.lifecycle import Status
from domain.reservations.queries import MAX_OVERDUE, MAX_OWN_PASSED_OVER, MAX_PASSED_OVER
from domain.reservations.streaming import stream
from domain.reservations.table import reservations as table
from domain.runtime.database import metadata, sessions
from domain.runtime.errors import UnknownItem
from domain.runtime.identity import lowest_id
from tests.support.builders import Db

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("a_million_reservations")]

RESERVATIONS = 1_000_000

ITEMS = 1_000

#: The reservations of a page.
LIMIT = 20

#: The pages that are read to find one row: from the root of an index of this size down to the row itself.
DESCENT = 5

#: A reservation is made every 10 ms, the last one at this time.
LAST = datetime(2026, 11, 1, tzinfo=UTC)

# Item 1 has nine tenths of all reservations. Items 2 and 3 have many, but no guest and no source in common: so there
# are pairs of values that are frequent, and never occur together.
FILL = (
    """
    INSERT INTO items (sku, name, available_quantity, stock_quantity)
    SELECT 'SKU-' || n, 'Thing', 0, 1000000 FROM generate_series(1, :items) AS n
    """,
    """
    INSERT INTO reservations
        (id, item_id, quantity, status, expires_at, guest_id, source, venue, provider, created_at, starts_at, ends_at)
    SELECT (lpad(to_hex(made), 12, '0') || '7' || substr(md5(n::text), 1, 3)
            || '8' || substr(md5(n::text), 4, 15))::uuid,
           CASE WHEN n % 10 < 9 THEN 1 WHEN n % 20 = 9 THEN 2 WHEN n % 40 = 19 THEN 3
                ELSE 4 + n / 40 % (:items - 3) END, 1,
           CASE WHEN n > :reservations - 50000 THEN 'PENDING' WHEN n % 1000 = 7 THEN 'REJECTED'
                ELSE (ARRAY['CONFIRMED', 'CANCELLED', 'EXPIRED', 'COMPLETED'])[1 + n % 4] END,
           now() + interval '1 hour',
           CASE WHEN n % 20 = 9 THEN 'agency' WHEN n % 5 = 0 THEN NULL WHEN n % 7 = 0 THEN 'guest-' || n % 10000
                ELSE 'walk-in' END,
           CASE WHEN n % 20 = 9 THEN 'csv' WHEN n % 1000 < 3 THEN 'rare' ELSE 'api' END,
           CASE WHEN n % 10 < 9 THEN 'lisbon' ELSE 'venue-' || n % 1000 END,
           CASE WHEN n % 10 < 3 THEN 'rita' ELSE 'provider-' || n % 1000 END,
           to_timestamp(made / 1000.0),
           CASE WHEN n % 3 = 0 THEN timestamptz '2026-01-01Z' + n * interval '20 seconds' END,
           CASE WHEN n % 3 = 0 THEN timestamptz '2026-01-01Z' + n * interval '20 seconds' + CASE n % 4
                WHEN 0 THEN interval '30 minutes' WHEN 1 THEN interval '3 hours' WHEN 2 THEN interval '9 hours'
                ELSE interval '2 days' END END
    FROM (SELECT n, (:last - 10 * (:reservations - n))::bigint AS made FROM generate_series(1, :reservations) AS n) AS n
    """,
)

#: Values that are frequent, rare, and unknown.
VALUES: Mapping[str, Sequence[Any]] = {
    "status": (Status.CONFIRMED, Status.REJECTED, Status.NO_SHOW, Status.PENDING, Status.EXPIRED),
    "item_id": (1, 2, 3, 777, 999_999),
    "guest_id": ("walk-in", "agency", "guest-7", "nobody"),
    "source": ("api", "csv", "rare", "nowhere"),
}

#: Every filter alone, every pair, and all that are more.
FILTERS = list(chain.from_iterable(combinations(VALUES, count) for count in range(len(VALUES) + 1)))

PERIODS: Sequence[Mapping[str, datetime]] = (
    {},
    {"since": LAST - timedelta(hours=1), "before": LAST - timedelta(minutes=59)},
    {"since": LAST + timedelta(days=1)},
    {"before": LAST - timedelta(hours=2)},
)

#: What PostgreSQL knows of the tables: nothing, that they were vacuumed while they were empty, everything.
STATISTICS = {
    "none": [],
    "empty": ["UPDATE pg_class SET relpages = 0, reltuples = 0 WHERE relname ~ '(items|reservations)'"],
    "fresh": ["VACUUM ANALYZE reservations", "ANALYZE items"],
}


@dataclass(frozen=True)
class Plan:
    """How the statements of an action were executed: what they scanned, and how many pages they read."""

    scans: frozenset[tuple[str, str]]
    pages: int


@pytest.fixture(scope="module")
def crowd(postgresql: PostgreSQL) -> Iterator[Engine]:
    """A database with a million reservations that PostgreSQL has never analysed."""
    url = make_url(postgresql.create("crowd")).set(drivername="postgresql+psycopg")
    engine = create_engine(url, connect_args={"options": "-c timezone=UTC -c session_replication_role=replica"})
    metadata.create_all(engine)
    with engine.begin() as connection:
        for name in ("items", "reservations"):
            connection.execute(text(f"ALTER TABLE {name} SET (autovacuum_enabled = false)"))
        for index in table.indexes:
            index.drop(connection)
        numbers = {"items": ITEMS, "reservations": RESERVATIONS, "last": int(LAST.timestamp() * 1_000)}
        for statement in FILL:
            connection.execute(text(statement), numbers)
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            index.create(connection)
    yield engine
    engine.dispose()
    server = make_url(postgresql.url).set(drivername="postgresql+psycopg")
    with create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
        connection.execute(text("DROP DATABASE crowd WITH (FORCE)"))


@pytest.fixture(scope="module", params=STATISTICS)
def crowded(crowd: Engine, request: pytest.FixtureRequest) -> Db:
    """The same database with no statistics, with wrong ones, and with fresh ones."""
    with crowd.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in STATISTICS[request.param]:
            connection.execute(text(statement))
    crowd.dispose()  # so that no connection keeps what it knew of the tables
    return sessions(crowd)


def find(before_id: UUID | None = None, **wanted: Any) -> Callable[[Session], object]:
    return lambda session: reservations.find(session, Filter(**wanted), before_id=before_id, limit=LIMIT)


@pytest.mark.parametrize("filters", FILTERS, ids="+".join)
def test_a_list_reads_in_proportion_to_its_page(crowded: Db, filters: Sequence[str]) -> None:
    periods = PERIODS if len(filters) <= 2 else PERIODS[:1]
    for values, period in product(product(*(VALUES[name] for name in filters)), periods):
        wanted = {**dict(zip(filters, values, strict=True)), **period}

        plan = executed(crowded, find(**wanted))

        assert_by_index(plan)
        assert plan.pages <= most_pages(filters), wanted


def most_pages(filters: Sequence[str]) -> int:
    """Return how many pages a list may read: two tables for each row that it shows, and what leads to the rows."""
    shown = LIMIT * 2 * DESCENT
    statuses = 1 if "status" in filters else len(Status)
    passed_over = MAX_PASSED_OVER if len(filters) > 2 else 0
    return shown + statuses * (DESCENT + LIMIT + passed_over) + 2 * DESCENT


def assert_by_index(plan: Plan) -> None:
    kinds = {kind for kind, name in plan.scans if name}
    assert kinds <= {"Index Scan", "Index Only Scan"}, plan


@pytest.mark.parametrize("filters", FILTERS, ids="+".join)
def test_the_plan_is_as_good_when_it_is_made_for_any_values(crowded: Db, filters: Sequence[str]) -> None:
    """After a few executions, a prepared statement is planned once for all values."""
    for status in VALUES["status"] if "status" in filters else [None]:
        wanted = {name: VALUES[name][0] for name in filters} | {"status": status}

        plan = executed(crowded, find(**wanted), generic=True)

        assert_by_index(plan)
        assert plan.pages <= most_pages(filters), wanted


#: Owners of most reservations, of many, of few, and of none, and what else they filter by.
OWNERS: Mapping[str, Sequence[str]] = {
    "guest_id": VALUES["guest_id"],
    "venue": ("lisbon", "venue-9", "nowhere"),
    "provider": ("rita", "provider-9", "nobody"),
}
NARROWED: Sequence[Mapping[str, Any]] = (
    *({name: value} for name in ("status", "item_id", "source") for value in VALUES[name]),
    {"item_id": 777, "source": "rare"},
    {"item_id": 1, "source": "nowhere", "status": Status.CONFIRMED},
    {"item_id": 1, "status": Status.EXPIRED},
)


def reach_of(kind: str, owner: str) -> Reach:
    if kind == "guest_id":
        return Reach(guest_id=owner)
    return Reach(venues=frozenset({owner})) if kind == "venue" else Reach(providers=frozenset({owner}))


def most_pages_of_own(wanted: Mapping[str, Any], own: int) -> int:
    """Return how many pages a list of one's own may read: what is passed over is one's own, in every status."""
    statuses = 2 if "status" in wanted else len(Status)
    passed_over = min(own, MAX_OWN_PASSED_OVER + LIMIT)
    return LIMIT * 2 * DESCENT + statuses * (2 * DESCENT + 2 * passed_over) + 2 * DESCENT


@pytest.mark.parametrize("kind", OWNERS)
def test_a_list_of_ones_own_reads_what_is_ones_own(crowded: Db, kind: str) -> None:
    for owner, wanted, generic in product(OWNERS[kind], NARROWED, (False, True)):
        most = most_pages_of_own(wanted, owned(crowded, kind, owner))
        for act in lists_of(reach_of(kind, owner), Filter(**wanted)):
            plan = executed(crowded, act, generic=generic)

            assert_by_index(plan)
            assert plan.pages <= most, (owner, wanted, generic)


def lists_of(reach: Reach, wanted: Filter) -> Sequence[Callable[[Session], object]]:
    """Return both lists of what is within reach: in order of making, and in order of start."""
    return (
        lambda session: reservations.find(session, wanted, limit=LIMIT, reach=reach),
        lambda session: reservations.find_overlapping(session, wanted, Window(), limit=LIMIT, reach=reach),
    )


def owned(db: Db, kind: str, owner: str) -> int:
    """Return how many reservations an owner has, up to more than a page passes over."""
    one = select(table.c.id).where(table.c[kind] == owner).limit(2 * MAX_PASSED_OVER)
    with db() as session:
        return session.execute(select(func.count()).select_from(one.subquery())).scalar_one()


@pytest.mark.parametrize("sku", [None, "SKU-1", "SKU-777"])
@pytest.mark.parametrize(("kind", "owner"), [("guest_id", "guest-7"), ("venue", "venue-9"), ("provider", "nobody")])
def test_a_stream_of_ones_own_reads_what_is_ones_own(crowded: Db, kind: str, owner: str, sku: str | None) -> None:
    own = owned(crowded, kind, owner)

    plan = executed(
        crowded, lambda session: [*stream(session, Filter(sku=sku), Window(), size=1_000, reach=reach_of(kind, owner))]
    )

    assert_by_index(plan)
    assert plan.pages <= len(CLASSES) * DESCENT + 2 * DESCENT * own + DESCENT


@pytest.mark.parametrize(
    ("sku", "status"),
    list(product(["SKU-1", "SKU-2", "SKU-777"], [None, Status.PENDING, Status.CONFIRMED, Status.NO_SHOW])),
)
def test_a_sku_is_looked_up_first(crowded: Db, sku: str, status: Status | None) -> None:
    plan = executed(crowded, find(sku=sku, status=status))

    assert_by_index(plan)
    assert plan.pages <= DESCENT + most_pages(["item_id"] if status is None else ["status", "item_id"])


def test_an_unknown_sku_costs_one_look_up(crowded: Db) -> None:
    plan = executed(crowded, find(sku="no such sku", status=Status.CONFIRMED, source="api"))

    assert_by_index(plan)
    assert plan.pages <= DESCENT


@pytest.mark.parametrize("filters", FILTERS, ids="+".join)
def test_a_page_far_down_a_list_costs_no_more_than_the_first(crowded: Db, filters: Sequence[str]) -> None:
    wanted = {name: VALUES[name][0] for name in filters}

    plan = executed(crowded, find(before_id=lowest_id(LAST - timedelta(minutes=90)), **wanted))

    assert_by_index(plan)
    assert plan.pages <= most_pages(filters)


#: Windows of a moment, of a day, open on one side, and beyond everything.
WINDOWS = [
    Window(ends_after=LAST - timedelta(days=200), starts_before=LAST - timedelta(days=200, seconds=-1)),
    Window(ends_after=LAST - timedelta(days=150), starts_before=LAST - timedelta(days=149)),
    Window(ends_after=LAST - timedelta(days=100)),
    Window(starts_before=LAST - timedelta(days=250)),
    Window(ends_after=LAST + timedelta(days=1_000)),
]


@pytest.mark.parametrize("name", [None, "item_id", "guest_id", "status"])
@pytest.mark.parametrize("window", WINDOWS, ids=["moment", "day", "from", "until", "never"])
def test_what_overlaps_a_window_is_read_in_proportion_to_the_page(crowded: Db, name: str, window: Window) -> None:
    """For each class of durations, rows are passed over that end before the window: about as many as overlap it."""
    for value in VALUES.get(name, [None]):
        wanted = {name: value} if name else {}

        plan = executed(
            crowded,
            lambda session, wanted=wanted: reservations.find_overlapping(  # type: ignore[misc]
                session, Filter(**wanted), window, limit=LIMIT
            ),
        )

        assert_by_index(plan)
        assert plan.pages <= LIMIT * 2 * DESCENT + 3 * len(CLASSES) * (DESCENT + LIMIT) + MAX_PASSED_OVER, wanted


@pytest.mark.parametrize("reference", [1, "SKU-500", "no such sku", 10**9])
def test_an_item_is_read_by_an_index(crowded: Db, reference: int | str) -> None:
    def get(session: Session) -> None:
        with suppress(UnknownItem):
            items.get(session, reference)

    plan = executed(crowded, get, given=["SET LOCAL enable_seqscan = off"])

    assert ("Seq Scan", "items") not in plan.scans
    assert plan.pages <= 2 * DESCENT


@pytest.fixture(scope="module", params=[MAX_OVERDUE // 2, 40_000])
def overdue(crowd: Engine, request: pytest.FixtureRequest) -> Db:
    """The same database with so many overdue holds."""
    with crowd.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        changed = connection.execute(
            text(f"""
            UPDATE reservations SET expires_at = now() - interval '1 minute'
            WHERE id IN (SELECT id FROM reservations WHERE status = 'PENDING' ORDER BY id LIMIT {request.param})
        """)
        )
        assert changed.rowcount == request.param
        connection.execute(text("VACUUM ANALYZE reservations"))
    return sessions(crowd)


@pytest.mark.parametrize("status", [Status.PENDING, Status.EXPIRED])
@pytest.mark.parametrize("filters", [(), ("item_id",), ("guest_id",), ("source",)], ids="+".join)
def test_overdue_holds_are_passed_over_up_to_a_limit(overdue: Db, status: Status, filters: Sequence[str]) -> None:
    for values in product(*(VALUES[name] for name in filters)):
        wanted: dict[str, Any] = {"status": status, **dict(zip(filters, values, strict=True))}

        plan = executed(overdue, find(**wanted))

        assert_by_index(plan)
        # The overdue holds are counted, and read if they are not too many.
        read = MAX_PASSED_OVER if status is Status.PENDING else 2 * MAX_OVERDUE
        assert plan.pages <= most_pages(["status", *filters]) + read, wanted


def executed(db: Db, act: Callable[[Session], object], given: Sequence[str] = (), *, generic: bool = False) -> Plan:
    """Explain the statements of `act` while they are executed once more, and roll everything back."""
    with db() as session:
        connection = session.connection()
        for change in given:
            connection.execute(text(change))
        explain = explain_for_any_values if generic else explain_for_values
        plans = [explain(connection, *statement) for statement in emitted(session, act)]
        session.rollback()
    return Plan(
        scans=frozenset((node["Node Type"], node.get("Relation Name", "")) for plan in plans for node in walk(plan)),
        pages=sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans),
    )


def emitted(session: Session, act: Callable[[Session], object]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the statements that `act` sends to the database, and their parameters."""
    seen: list[tuple[str, Mapping[str, Any]]] = []

    def note(_: Connection, cursor: object, statement: str, parameters: Mapping[str, Any], *__: object) -> None:
        seen.append((statement, parameters))

    event.listen(session.connection(), "before_cursor_execute", note)
    act(session)
    event.remove(session.connection(), "before_cursor_execute", note)
    return seen


EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"


def explain_for_values(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    ((((root,),)),) = connection.exec_driver_sql(f"{EXPLAIN} {statement}", dict(parameters)).all()
    return dict(root["Plan"])


def explain_for_any_values(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    for place, name in enumerate(names, start=1):
        statement = statement.replace(f"%({name})s", f"${place}")
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    # A cursor of the client writes the values into the statement: EXECUTE takes no parameters from elsewhere.
    with psycopg.ClientCursor(driver) as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE probe AS {statement.replace('%%', '%')}")
        values = ", ".join(["%s"] * len(names))
        cursor.execute(f"{EXPLAIN} EXECUTE probe{f'({values})' if names else ''}", [parameters[name] for name in names])
        ((((root,),)),) = cursor.fetchall()
        cursor.execute("DEALLOCATE probe")
    return dict(root["Plan"])


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)
