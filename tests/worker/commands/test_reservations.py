"""bin/expire-reservations: it works from anywhere, with PostgreSQL alone, and reports what it expired."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, update

from domain.outbox.table import outbox
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from tests.support.builders import Db, a_request, an_item, an_overdue_hold, available, reserve, stored_as
from tests.support.commands import a_routes_file, run_command
from tests.support.outbox import with_shop

pytestmark = pytest.mark.slow


def test_without_overdue_holds_nothing_is_expired(db: Db) -> None:
    run = run_command("expire-reservations")

    assert (run.returncode, run.stdout, run.stderr) == (0, "0 holds expired\n", "")


def test_overdue_holds_are_expired(db: Db) -> None:
    item = an_item(db, quantity=10)
    for _ in range(3):
        an_overdue_hold(db, item, quantity=2)

    run = run_command("expire-reservations")

    assert (run.returncode, run.stdout) == (0, "3 holds expired\n")
    assert available(db, item) == 10
    assert run_command("expire-reservations").stdout == "0 holds expired\n"


def test_no_more_holds_are_expired_than_the_limit(db: Db) -> None:
    item = an_item(db, quantity=10)
    for _ in range(5):
        an_overdue_hold(db, item)

    assert run_command("expire-reservations", "--limit", "2").stdout == "2 holds expired\n"

    assert len(stored_as(db, Status.EXPIRED)) == 2


def test_the_events_of_an_expiry_go_to_the_destinations_of_the_routes(db: Db, tmp_path: Path) -> None:
    an_overdue_hold(db, an_item(db))
    with_shop(db)

    run_command("expire-reservations", HOLDFAST_ROUTES=a_routes_file(tmp_path, "shop"))

    with db.begin() as session:
        events = select(outbox.c.type).where(outbox.c.destination == "shop").order_by(outbox.c.id)
        assert session.execute(events).scalars().all() == ["booking.status_changed", "booking.expired"]


def test_processes_beside_each_other_expire_everything_once(db: Db) -> None:
    item = an_item(db, quantity=3_000)
    reserve(db, *(a_request(item) for _ in range(2_000)))
    with db.begin() as session:
        session.execute(update(table).values(expires_at=table.c.created_at))

    with ThreadPoolExecutor(3) as elsewhere:
        runs = list(elsewhere.map(lambda _: run_command("expire-reservations"), range(3)))

    assert [run.returncode for run in runs] == [0, 0, 0]
    run_command("expire-reservations")
    assert available(db, item) == 3_000
