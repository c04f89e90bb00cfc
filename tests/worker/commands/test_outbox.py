"""bin/process-outbox: it works from anywhere, with PostgreSQL alone, and reports what it delivered."""

import json
import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sqlalchemy import func, select

from domain.outbox.operations import destinations
from domain.outbox.routes import Route, Routes
from domain.outbox.table import lanes
from domain.runtime.settings import ROOT
from tests.domain.outbox.conftest import clock, set_shop
from tests.support.builders import Db, with_routes
from tests.support.commands import bare, on_one_line, run_command, start_command
from tests.support.http_server import a_server, saying
from tests.support.operations import ENTRY, mark_delivered
from tests.support.outbox import an_aggregate, recorded_for, row, states, with_shop
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from worker.commands.output import instant

pytestmark = pytest.mark.slow

NOTHING = "0 delivered, 0 waiting, 0 dead\n"


@pytest.fixture
def routes(tmp_path: Path) -> Callable[..., str]:
    """Write a routes file with these destinations, and return its path."""

    def written(**urls: str) -> str:
        path = tmp_path / "routes.toml"
        path.write_text(
            "".join(
                f'[[destination]]\nname = "{name}"\nurl = "{url}"\nmax_attempts = 2\n' for name, url in urls.items()
            )
        )
        return str(path)

    return written


def test_an_empty_outbox_is_processed_at_once(db: Db) -> None:
    run = run_command("process-outbox")

    assert (run.returncode, run.stdout, run.stderr) == (0, NOTHING, "")


def test_the_outbox_is_delivered_to_where_the_routes_lead(db: Db, routes: Callable[..., str], tmp_path: Path) -> None:
    shop = with_shop(db)
    recorded_for(shop, *(an_aggregate(number % 32) for number in range(40)))

    run = run_command("process-outbox", HOLDFAST_ROUTES=routes(shop=f"log:{tmp_path}/events"))

    assert (run.returncode, run.stdout) == (0, "40 delivered, 0 waiting, 0 dead\n")
    assert len((tmp_path / "events").read_text().splitlines()) == 40
    assert set(states(shop)) == {"processed"}


def test_whoever_closes_the_standard_streams_gets_events_delivered_too(
    db: Db, routes: Callable[..., str], tmp_path: Path
) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())
    environment = {
        "DATABASE_URL": os.environ["DATABASE_URL"],
        "HOLDFAST_ROUTES": routes(shop=f"log:{tmp_path}/events"),
    }

    line = ["sh", "-c", 'exec "$0" <&- >&- 2>&-', str(ROOT / "bin" / "process-outbox")]
    run = subprocess.run(line, cwd="/", env=bare(environment), check=False)

    assert run.returncode == 0
    assert len((tmp_path / "events").read_text().splitlines()) == 1


def test_a_destination_that_hangs_keeps_no_other_waiting(db: Db, routes: Callable[..., str], tmp_path: Path) -> None:
    """The one that hangs is the first in the alphabet, and answers when the other has its events."""
    names, log = ("a-shop", "log"), tmp_path / "events"
    shops = with_routes(db, Routes([Route(name=name, url="null:") for name in names]))
    recorded_for(shops, *(an_aggregate(lane) for lane in range(3)))

    def when_the_other_is_served(handler: BaseHTTPRequestHandler) -> None:
        wait_until("the other has its events", lambda: log.exists() and len(log.read_text().splitlines()) == 3)
        saying(204)(handler)

    with a_server() as server:
        server.answer = when_the_other_is_served
        run = run_command("process-outbox", HOLDFAST_ROUTES=routes(**{"a-shop": server.url, "log": f"log:{log}"}))

    assert (run.returncode, run.stdout) == (0, "6 delivered, 0 waiting, 0 dead\n")


def test_a_destination_that_redirects_everybody_is_down_and_costs_no_attempts(
    db: Db, routes: Callable[..., str]
) -> None:
    shop = with_shop(db)
    ids = recorded_for(shop, *(an_aggregate(number) for number in range(3)))

    with a_server() as server:
        server.answer = saying(302, Location="https://elsewhere.example/")
        environment = {"HOLDFAST_ROUTES": routes(shop=server.url)}
        run = run_command("process-outbox", **environment)
        listed = run_command("destinations", "list", **environment)

    assert run.returncode == 1
    assert [one.split()[1] for one in listed.stdout.splitlines() if one.startswith("shop ")] == ["down"]
    assert "302 Found" in listed.stdout
    assert {row(shop, one).attempts for one in ids} == {0}


def test_the_default_destination_is_standard_output(db: Db) -> None:
    shop = with_shop(db, name="log")
    recorded_for(shop, an_aggregate())

    run = run_command("process-outbox")

    event, summary = run.stdout.splitlines()
    assert json.loads(event)["event_type"] == "booking.created"
    assert summary.startswith("1 delivered")


def test_no_more_rows_are_tried_than_the_limit(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    recorded_for(shop, *(an_aggregate(number) for number in range(10)))

    run = run_command("process-outbox", "--limit", "4", HOLDFAST_ROUTES=routes(shop="null:"))

    assert run.stdout.startswith("4 delivered")
    assert states(shop).count("ready") == 6


def test_only_the_destination_that_is_named_is_served(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())

    other = run_command("process-outbox", "--destination", "other", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))
    assert (other.returncode, other.stdout, states(shop)) == (0, NOTHING, ["ready"])
    named = run_command("process-outbox", "--destination", "shop", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))
    assert named.stdout.startswith("1 delivered")


def test_an_unknown_destination_is_wrong_usage_and_the_known_ones_are_listed(
    db: Db, routes: Callable[..., str]
) -> None:
    run = run_command("process-outbox", "--destination", "nowhere", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))

    assert run.returncode == 2
    assert "The routes have no destination 'nowhere'; they have shop, other. Check its name" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_paused_destination_is_named_with_the_reason_and_how_to_resume_it(db: Db, routes: Callable[..., str]) -> None:
    recorded_for(with_shop(db), an_aggregate())
    with db.begin() as session:
        destinations.pause(session, "shop", ENTRY)

    run = run_command("process-outbox", "--destination", "shop", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))

    assert (run.returncode, run.stderr) == (0, "")
    assert on_one_line(run.stdout) == (
        f"{NOTHING.strip()} shop is paused (stocktaking (ann)): its events wait, and none is sent until somebody"
        " resumes it. Resume it: bin/destinations resume shop --why TEXT"
    )


def test_a_destination_that_is_down_is_named_with_the_reason_and_when_it_is_tried(
    db: Db, routes: Callable[..., str]
) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())
    later = clock(shop) + timedelta(minutes=5)
    set_shop(shop, failures=2, opened_at=clock(shop), open_until=later, reason="503 Service\nUnavailable")

    run = run_command("process-outbox", HOLDFAST_ROUTES=routes(shop="null:"))

    assert run.returncode == 0
    printed = on_one_line(run.stdout)
    assert printed.startswith(f"{NOTHING.strip()} shop has been down since ")
    assert "(503 Service Unavailable): its events wait, which costs no attempts." in printed
    assert f"The first run from {instant(later)} on tries it with one of them." in printed
    assert printed.endswith("bin/destinations probe shop --why TEXT")
    assert all(len(line) <= 100 for line in run.stdout.splitlines())


def test_what_is_held_back_can_be_read_as_json(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())
    set_shop(shop, paused=True, reason="410 Gone")

    run = run_command("process-outbox", "--json", HOLDFAST_ROUTES=routes(shop="null:", other="null:"))

    assert json.loads(run.stdout)["held_back"] == [
        {"destination": "shop", "condition": "paused", "since": None, "reason": "410 Gone", "next_probe_at": None}
    ]


def test_a_paused_destination_without_pending_events_is_not_named(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())
    mark_delivered(shop, 1)
    set_shop(shop, paused=True)

    assert run_command("process-outbox", HOLDFAST_ROUTES=routes(shop="null:")).stdout == NOTHING


def test_a_row_that_has_to_be_retried_is_trouble(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())
    with a_server() as server:
        server.answer = saying(500)
        run = run_command("process-outbox", HOLDFAST_ROUTES=routes(shop=server.url))

    assert run.returncode == 1 and run.stdout.startswith("0 delivered, 1 waiting, 0 dead\n")
    assert states(shop) == ["waiting"]


def test_a_row_that_becomes_a_dead_letter_is_trouble(db: Db, routes: Callable[..., str]) -> None:
    recorded_for(with_shop(db), an_aggregate())
    with a_server() as server:
        server.answer = saying(422)
        run = run_command("process-outbox", HOLDFAST_ROUTES=routes(shop=server.url))

    assert (run.returncode, run.stdout) == (1, "0 delivered, 0 waiting, 1 dead\n")


def test_processes_beside_each_other_deliver_everything_once(
    db: Db, routes: Callable[..., str], tmp_path: Path
) -> None:
    shop = with_shop(db, batch_size=7)
    recorded_for(shop, *(an_aggregate(number % 32) for number in range(300)))
    path = routes(shop=f"log:{tmp_path}/events")

    with ThreadPoolExecutor(3) as elsewhere:
        runs = list(elsewhere.map(lambda _: run_command("process-outbox", HOLDFAST_ROUTES=path), range(3)))

    assert [run.returncode for run in runs] == [0, 0, 0]
    sent = [json.loads(line)["event_id"] for line in (tmp_path / "events").read_text().splitlines()]
    assert len(sent) == len(set(sent)) == 300


def test_on_sigterm_a_run_ends_with_its_batch_and_releases_its_lanes(db: Db, routes: Callable[..., str]) -> None:
    shop = with_shop(db)
    recorded_for(shop, *(an_aggregate(number % 4) for number in range(1_000)))
    is_signalled = threading.Event()
    with a_server() as server:

        def slowly(handler: BaseHTTPRequestHandler) -> None:
            is_signalled.wait()
            time.sleep(0.05)
            saying(200)(handler)

        server.answer = slowly
        process = start_command("process-outbox", HOLDFAST_ROUTES=routes(shop=server.url))
        wait_until("it has begun", lambda: bool(server.requests))
        process.send_signal(signal.SIGTERM)
        is_signalled.set()
        printed, _ = process.communicate(timeout=10)

    delivered = len(server.requests)
    assert 0 < delivered < 1_000
    assert printed.startswith(b"%d delivered" % delivered)
    with shop.begin() as session:
        leased = select(func.count()).where(lanes.c.leased_until > func.clock_timestamp())
        assert session.execute(leased).scalar_one() == 0
    assert states(shop).count("processed") == delivered


def test_progress_is_shown_on_a_terminal_only(db: Db, routes: Callable[..., str]) -> None:
    recorded_for(with_shop(db), an_aggregate())
    end, terminal = pty.openpty()

    process = start_command("process-outbox", stderr=terminal, TERM="xterm", HOLDFAST_ROUTES=routes(shop="null:"))
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    os.close(terminal)
    shown = os.read(end, 10_000)
    os.close(end)

    assert b"deliver" in shown.lower()
    assert printed.startswith(b"1 delivered")
