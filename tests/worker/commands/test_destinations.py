"""bin/destinations: the status of each destination, and how an operator pauses, resumes or probes it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from domain.outbox import Cause, Unreachable
from domain.outbox.operations.destinations import Condition
from domain.outbox.operations.status import MAX_COUNTED, CountedStatus, read_statuses
from domain.outbox.table import outbox
from tests.conftest import OpenRelay
from tests.support.builders import Db, an_event, recorded
from tests.support.commands import a_routes_file, on_one_line, run_command
from tests.support.operations import a_backlog, audited, mark_dead, mark_delivered
from tests.support.outbox import (
    NOT_NOW,
    SHOP,
    FakeDestination,
    a_lane,
    an_aggregate,
    claimed,
    destination,
    recorded_for,
    row,
    rows,
    states,
    time_passes,
    with_shop,
)
from tests.support.refusals import everything
from worker.relay.relay import Relay
from worker.relay.tally import Tally

pytestmark = pytest.mark.slow

WHY = "--why=stocktaking (OPS-7)"

#: Its destination stays down for longer than any test takes.
BUSY = Unreachable("503 busy", retry_after=timedelta(minutes=30))


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def status(db: Db, name: str = SHOP) -> CountedStatus:
    with db.begin() as session:
        (found,) = [one for one in read_statuses(session) if one.name == name]
    return found


def listed(tmp_path: Path, *routes: str) -> str:
    run = run_command("destinations", "list", HOLDFAST_ROUTES=a_routes_file(tmp_path, *(routes or (SHOP,))))
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_destinations_with_nothing_to_deliver_are_up(db: Db, tmp_path: Path) -> None:
    lines = listed(tmp_path, "confirmation", "events").splitlines()

    assert lines[0].split() == [
        "NAME",
        "CONDITION",
        "PENDING",
        "WAITING",
        "DEAD",
        "OLDEST",
        "PENDING",
        "LANES",
        "LEASED",
    ]
    assert [line.split() for line in lines[1:]] == [
        [name, "up", "0", "0", "0", "-", "0"] for name in ("confirmation", "events")
    ]


def test_pending_waiting_and_dead_rows_are_counted_and_the_oldest_is_shown(relay_to: OpenRelay, tmp_path: Path) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    ids = recorded_for(relay.db, *(an_aggregate(lane) for lane in range(6)))
    server.failures[ids[0]] = NOT_NOW
    relay.run(limit=1)
    mark_delivered(relay.db, ids[1])
    mark_dead(relay.db, ids[2])

    found = status(relay.db)

    assert (found.pending, found.waiting, found.dead) == (4, 1, 1)
    assert found.oldest_pending_at == row(relay.db, ids[0]).created_at
    text = listed(tmp_path)
    assert "shop          up               4        1     1  2" in text
    assert "dead letters: bin/dead-letters list --destination shop" in text


def test_a_backlog_is_counted_up_to_a_bound_and_marked_as_more(shop: Db, tmp_path: Path) -> None:
    a_backlog(shop, MAX_COUNTED)
    recorded(shop, an_event(), an_event())
    mark_dead(shop, MAX_COUNTED + 1)

    found = status(shop)

    assert (found.pending, found.waiting, found.dead, found.lower_bounds) == (MAX_COUNTED, 0, 1, ["pending"])
    assert "shop          up         20,000+        0     1  2" in listed(tmp_path)
    assert "no worker delivers at least 20,000 rows." in on_one_line(listed(tmp_path, "events"))


def test_a_list_that_takes_too_long_is_given_up_with_a_message_that_fits_a_list(shop: Db) -> None:
    with shop.begin() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        session.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
        run = run_command("destinations", "list")

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("The database is too busy (")
    assert run.stderr.endswith("). No status was read. Wait a little and run it again.\n")


def test_the_holders_of_leased_lanes_are_shown(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    assert status(shop).holders == [lane.holder]

    second = claimed(shop, holder="host:17:0123456789abcdef")

    assert second is None, "only one lane has something to do"
    assert f"lanes leased by {lane.holder}" in listed(tmp_path)


def test_a_destination_that_is_down_is_listed_with_since_when_why_and_its_next_probe(
    relay_to: OpenRelay, tmp_path: Path
) -> None:
    relay = relay_to(FakeDestination(lambda _: BUSY))
    recorded_for(relay.db, an_aggregate())
    relay.run()

    found, state = status(relay.db), destination(relay.db)

    assert (found.condition, found.opened_at, found.next_probe_at) == (
        Condition.DOWN,
        state.opened_at,
        state.open_until,
    )
    text = on_one_line(listed(tmp_path))
    assert "down since " in text and "next probe at " in text and "503 busy" in text


def test_a_destination_that_left_the_routes_is_listed_with_its_pending_rows_and_none_is_dropped(
    shop: Db, tmp_path: Path
) -> None:
    recorded_for(shop, an_aggregate(), an_aggregate())
    with shop.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == 2).values(destination="rolled-back"))
    before = rows(shop)

    text = on_one_line(listed(tmp_path, "events"))

    assert text.count("not in the routes: no worker delivers 1 row.") == 2
    assert status(shop, "rolled-back").pending == 1
    assert run_command("process-outbox", HOLDFAST_ROUTES=a_routes_file(tmp_path, "events")).returncode == 0
    assert rows(shop) == before


def test_a_destination_that_no_worker_has_served_yet_is_listed(db: Db, tmp_path: Path) -> None:
    assert "no worker has served them yet: brand-new." in listed(tmp_path, "brand-new", "events")


def test_a_paused_destination_gets_nothing_until_it_is_resumed(relay_to: OpenRelay, tmp_path: Path) -> None:
    relay = relay_to(FakeDestination())
    recorded_for(relay.db, an_aggregate())

    paused = run_command("destinations", "pause", SHOP, WHY, "--who=ann@ops")
    assert paused.returncode == 0 and paused.stdout.startswith("shop is paused: ")
    assert relay.run() == Tally()
    found = status(relay.db)
    assert (found.condition, found.reason) == (Condition.PAUSED, "stocktaking (OPS-7) (ann@ops)")
    text = listed(tmp_path)
    assert "stocktaking (OPS-7)" in text and "bin/destinations resume shop" in text
    resumed = run_command("destinations", "resume", SHOP, "--why=done", "--who=bob@ops")

    assert resumed.returncode == 0 and relay.run() == Tally(tried=1, processed=1)
    done = [(one.action, one.who, one.why, one.selection["destination"]) for one in audited(relay.db)]
    assert done == [("pause", "ann@ops", "stocktaking (OPS-7)", SHOP), ("resume", "bob@ops", "done", SHOP)]
    assert found.paused_at == audited(relay.db)[0].happened_at


GONE = Unreachable("410 Gone", cause=Cause.GONE)


def test_a_destination_that_paused_itself_is_listed_with_its_answer(relay_to: OpenRelay, tmp_path: Path) -> None:
    relay = relay_to(FakeDestination(lambda _: GONE))
    _tell_two_events(relay)

    assert (status(relay.db).condition, status(relay.db).paused_at) == (Condition.PAUSED, None)
    assert "paused: 410 Gone" in listed(tmp_path)


def test_a_destination_that_paused_itself_was_not_paused_by_an_earlier_operator(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(lambda _: GONE))
    run_command("destinations", "pause", SHOP, WHY)
    run_command("destinations", "resume", SHOP, WHY)
    _tell_two_events(relay)

    assert (status(relay.db).condition, status(relay.db).paused_at) == (Condition.PAUSED, None)


def _tell_two_events(relay: Relay) -> None:
    """Let the shop say of two events, one after another, that it is gone."""
    recorded_for(relay.db, an_aggregate(), an_aggregate())
    for _ in range(2):
        relay.run()
        time_passes(relay.db)


def test_a_probe_is_made_at_once_and_if_it_succeeds_everything_is_delivered(relay_to: OpenRelay) -> None:
    server = FakeDestination(lambda _: BUSY)
    relay = relay_to(server)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate, *(an_aggregate(lane) for lane in range(5)))
    relay.run()
    server.called.clear()
    server.answer = FakeDestination().answer
    assert relay.run() == Tally()

    run = run_command("destinations", "probe", SHOP, WHY)

    assert run.returncode == 0 and "probed at once" in run.stdout
    assert relay.run() == Tally(tried=7, processed=7)
    assert sorted(server.called) == ids and server.called.index(ids[0]) < server.called.index(ids[1])
    assert status(relay.db).condition is Condition.UP
    assert [(one.action, one.rows > 0) for one in audited(relay.db)] == [("probe", True)]


def test_a_probe_of_a_destination_that_is_still_down_costs_one_call(relay_to: OpenRelay) -> None:
    server = FakeDestination(lambda _: BUSY)
    relay = relay_to(server)
    recorded_for(relay.db, *(an_aggregate(lane) for lane in range(5)))
    relay.run()
    server.called.clear()

    run_command("destinations", "probe", SHOP, WHY)
    relay.run()

    assert len(server.called) == 1
    assert status(relay.db).condition is Condition.DOWN
    with relay.db.begin() as session:
        assert set(session.execute(select(outbox.c.attempts)).scalars()) == {0}


@pytest.mark.parametrize(("action", "message"), [("resume", "is not paused"), ("probe", "not known to be down")])
def test_a_change_that_changes_nothing_says_so(shop: Db, action: str, message: str) -> None:
    before = everything(shop)

    run = run_command("destinations", action, SHOP, WHY)

    assert run.returncode == 0 and message in on_one_line(run.stdout)
    assert everything(shop) == before


def test_a_destination_that_is_down_and_paused_is_not_probed(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(lambda _: BUSY))
    recorded_for(relay.db, an_aggregate())
    relay.run()
    run_command("destinations", "pause", SHOP, WHY)
    before = everything(relay.db)

    run = run_command("destinations", "probe", SHOP, WHY)

    assert run.returncode == 0 and "it is paused (bin/destinations resume shop" in run.stdout
    assert everything(relay.db) == before


def test_pausing_a_paused_destination_changes_nothing(shop: Db) -> None:
    run_command("destinations", "pause", SHOP, WHY)
    before = everything(shop)

    assert "paused already" in run_command("destinations", "pause", SHOP, "--why=other").stdout
    assert everything(shop) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pause", "nowhere", WHY], "'nowhere'. The destinations are: confirmation, events, shop"),
        (["resume", "nowhere", WHY], "'nowhere'"),
        (["probe", "nowhere", WHY], "'nowhere'"),
        (["pause", SHOP], "--why is required"),
        (["pause", SHOP, "--why="], "why: say why"),
        (["stop", SHOP, WHY], "No such command 'stop'"),
        ([], "list"),
    ],
)
def test_wrong_usage_is_refused_and_changes_nothing(shop: Db, arguments: list[str], message: str) -> None:
    before = everything(shop)

    run = run_command("destinations", *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert message in on_one_line(run.stderr) and "Traceback" not in run.stderr
    assert everything(shop) == before


def test_times_are_shown_in_utc(shop: Db, tmp_path: Path) -> None:
    recorded_for(shop, an_aggregate())

    shown = next(word for word in listed(tmp_path).split() if word.endswith("Z") and word[:4].isdigit())

    assert abs(datetime.fromisoformat(shown) - datetime.now(UTC)) < timedelta(minutes=1)
    assert states(shop) == ["ready"]
