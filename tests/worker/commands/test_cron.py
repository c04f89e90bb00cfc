"""The keys for cron: they work from anywhere, with PostgreSQL alone, and say what they did."""

import json
import os
import pty
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from deploy.embedded import PostgreSQL
from domain.outbox.table import lanes, outbox
from domain.reservations import Filter, find
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from tests.support.builders import Db, a_request, an_item, an_overdue_hold, available, reserve
from tests.support.commands import PATIENCE_SECONDS, turned, turning
from tests.support.outbox import an_aggregate, promised, standing, with_shop
from tests.support.servers import a_server, saying

NOTHING = "0 delivered, 0 waiting for another try, 0 dead\n"


@pytest.fixture
def routes(tmp_path: Path) -> Callable[..., str]:
    """Write a routes file with these destinations, and return where it is."""

    def written(**urls: str) -> str:
        path = tmp_path / "routes.toml"
        path.write_text(
            "".join(
                f'[[destination]]\nname = "{name}"\nurl = "{url}"\nmax_attempts = 2\n' for name, url in urls.items()
            )
        )
        return str(path)

    return written


def test_with_nothing_to_do_they_do_nothing(db: Db) -> None:
    delivering, expiring = turned("process-outbox"), turned("expire-reservations")

    assert (delivering.returncode, delivering.stdout, delivering.stderr) == (0, NOTHING, "")
    assert (expiring.returncode, expiring.stdout, expiring.stderr) == (0, "0 holds expired\n", "")


def test_the_outbox_is_drained_to_where_the_routes_say(db: Db, routes: Callable[..., str], tmp_path: Path) -> None:
    shop = with_shop(db)
    promised(shop, *(an_aggregate(number % 32) for number in range(40)))

    run = turned("process-outbox", HOLDFAST_ROUTES=routes(shop=f"log:{tmp_path}/events"))

    assert (run.returncode, run.stdout) == (0, "40 delivered, 0 waiting for another try, 0 dead\n")
    assert len((tmp_path / "events").read_text().splitlines()) == 40
    assert set(standing(shop)) == {"processed"}


def test_the_default_destination_is_standard_output(db: Db) -> None:
    shop = with_shop(db, name="log")
    promised(shop, an_aggregate())

    run = turned("process-outbox")

    event, told = run.stdout.splitlines()
    assert json.loads(event)["event_type"] == "booking.created"
    assert told.startswith("1 delivered")


def test_no_more_are_tried_than_the_limit(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    promised(shop, *(an_aggregate(number) for number in range(10)))

    run = turned("process-outbox", "--limit", "4", HOLDFAST_ROUTES=routes(shop="null:"))

    assert run.stdout.startswith("4 delivered")
    assert standing(shop).count("ready") == 6


def test_only_the_destination_that_is_named_is_served(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    promised(shop, an_aggregate())

    other = turned("process-outbox", "--destination", "other", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))
    assert (other.returncode, other.stdout, standing(shop)) == (0, NOTHING, ["ready"])
    named = turned("process-outbox", "--destination", "shop", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))
    assert named.stdout.startswith("1 delivered")


def test_a_destination_that_is_not_there_is_named_with_those_that_are(db: Db, routes: Callable[..., str]) -> None:
    run = turned("process-outbox", "--destination", "nowhere", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))

    assert run.returncode == 2
    assert "'nowhere'" in run.stderr and "shop, other" in run.stderr
    assert "Traceback" not in run.stderr


def test_what_could_not_be_delivered_is_trouble(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    promised(shop, an_aggregate(1), an_aggregate(2))
    with a_server() as server:
        server.answer = saying(408)
        run = turned("process-outbox", "--limit", "2", HOLDFAST_ROUTES=routes(shop=server.url))

    assert (run.returncode, run.stdout) == (1, "0 delivered, 2 waiting for another try, 0 dead\n")
    assert standing(shop) == ["waiting", "waiting"]


def test_what_died_is_trouble(db: Db, routes: Callable[..., str]) -> None:
    promised(with_shop(db), an_aggregate())
    with a_server() as server:
        server.answer = saying(404)
        run = turned("process-outbox", HOLDFAST_ROUTES=routes(shop=server.url))

    assert (run.returncode, run.stdout) == (1, "0 delivered, 0 waiting for another try, 1 dead\n")


def test_overdue_holds_are_expired(db: Db) -> None:
    item = an_item(db, quantity=10)
    for _ in range(3):
        an_overdue_hold(db, item, quantity=2)

    run = turned("expire-reservations")

    assert (run.returncode, run.stdout) == (0, "3 holds expired\n")
    assert available(db, item) == 10
    assert turned("expire-reservations").stdout == "0 holds expired\n"


def test_no_more_are_expired_than_the_limit(db: Db) -> None:
    item = an_item(db, quantity=10)
    for _ in range(5):
        an_overdue_hold(db, item)

    assert turned("expire-reservations", "--limit", "2").stdout == "2 holds expired\n"

    with db.begin() as session:
        assert len(find(session, Filter(status=Status.EXPIRED), limit=10)) == 2


def test_an_expiry_tells_whom_the_routes_name(db: Db, routes: Callable[..., str]) -> None:
    an_overdue_hold(db, an_item(db))
    with_shop(db)

    turned("expire-reservations", HOLDFAST_ROUTES=routes(shop="null:"))

    with db.begin() as session:
        told = select(outbox.c.type).where(outbox.c.destination == "shop").order_by(outbox.c.id)
        assert session.execute(told).scalars().all() == ["booking.status_changed", "booking.expired"]


@pytest.mark.parametrize("limit", ["0", "all"])
@pytest.mark.parametrize("key", ["process-outbox", "expire-reservations"])
def test_a_limit_that_is_none_is_refused(db: Db, key: str, limit: str) -> None:
    run = turned(key, f"--limit={limit}")

    assert run.returncode == 2
    assert "--limit" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("key", ["process-outbox", "expire-reservations"])
def test_a_database_that_is_down_is_trouble_and_said_so(key: str) -> None:
    run = turned(key, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")

    assert run.returncode == 1
    assert "can't be reached" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("key", ["process-outbox", "expire-reservations", "doctor"])
def test_a_database_that_is_not_migrated_is_trouble_and_said_so(postgresql: PostgreSQL, key: str) -> None:
    run = turned(key, DATABASE_URL=postgresql.create("bare"))

    assert run.returncode == 1
    assert "does not exist" in run.stderr and "Traceback" not in run.stderr


def test_beside_each_other_they_deliver_everything_once(db: Db, routes: Callable[..., str], tmp_path: Path) -> None:
    shop = with_shop(db, batch_size=7)
    promised(shop, *(an_aggregate(number % 32) for number in range(300)))
    path = routes(shop=f"log:{tmp_path}/events")

    with ThreadPoolExecutor(3) as elsewhere:
        runs = list(elsewhere.map(lambda _: turned("process-outbox", HOLDFAST_ROUTES=path), range(3)))

    assert [run.returncode for run in runs] == [0, 0, 0]
    sent = [json.loads(line)["event_id"] for line in (tmp_path / "events").read_text().splitlines()]
    assert len(sent) == len(set(sent)) == 300


def test_sweepers_beside_each_other_expire_everything_once(db: Db) -> None:
    item = an_item(db, quantity=3_000)
    reserve(db, *(a_request(item) for _ in range(2_000)))
    with db.begin() as session:
        session.execute(update(table).values(expires_at=table.c.created_at))

    with ThreadPoolExecutor(3) as elsewhere:
        runs = list(elsewhere.map(lambda _: turned("expire-reservations"), range(3)))

    assert [run.returncode for run in runs] == [0, 0, 0]
    turned("expire-reservations")
    assert available(db, item) == 3_000


def test_on_sigterm_a_drain_ends_with_its_batch_and_gives_its_lanes_back(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    promised(shop, *(an_aggregate(number % 4) for number in range(200)))
    with a_server() as server:

        def slowly(handler: BaseHTTPRequestHandler) -> None:
            time.sleep(0.05)
            saying(200)(handler)

        server.answer = slowly
        key = turning("process-outbox", HOLDFAST_ROUTES=routes(shop=server.url))
        while not server.heard:
            time.sleep(0.01)
        key.send_signal(signal.SIGTERM)
        said, _ = key.communicate(timeout=10)

    delivered = len(server.heard)
    assert 0 < delivered < 200
    assert said.startswith(b"%d delivered" % delivered)
    with shop.begin() as session:
        held = select(func.count()).where(lanes.c.leased_until > func.clock_timestamp())
        assert session.execute(held).scalar_one() == 0
    assert standing(shop).count("processed") == delivered


def test_progress_is_shown_on_a_terminal_only(db: Db, routes: Callable[..., str]) -> None:
    promised(with_shop(db), an_aggregate())
    end, terminal = pty.openpty()

    key = turning("process-outbox", stderr=terminal, TERM="xterm", HOLDFAST_ROUTES=routes(shop="null:"))
    said, _ = key.communicate(timeout=PATIENCE_SECONDS)
    os.close(terminal)
    shown = os.read(end, 10_000)
    os.close(end)

    assert b"deliver" in shown.lower()
    assert said.startswith(b"1 delivered")
