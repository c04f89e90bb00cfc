"""bin/destinations: how each fares, and what an operator can do about it, with who and why."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from domain.outbox import Unreachable
from domain.outbox.operations.destinations import State
from domain.outbox.operations.status import MOST, Standing, look
from domain.outbox.table import outbox
from tests.conftest import OpenDrain
from tests.support.builders import Db, an_event, recorded
from tests.support.commands import routed, turned
from tests.support.operations import a_backlog, audited, died, left
from tests.support.outbox import (
    NOT_NOW,
    SHOP,
    Outside,
    Troubled,
    a_lane,
    an_aggregate,
    claimed,
    destination,
    promised,
    row,
    rows,
    standing,
    with_shop,
)
from tests.support.refusals import everything
from worker.relay.relay import Tally

WHY = "--why=stocktaking (OPS-7)"

#: It asks to be left alone for longer than any test takes.
BUSY = Unreachable("503 busy", retry_after=timedelta(minutes=30))


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def fares(db: Db, name: str = SHOP) -> Standing:
    with db.begin() as session:
        (found,) = [one for one in look(session) if one.name == name]
    return found


def listed(tmp_path: Path, *routes: str) -> str:
    run = turned("destinations", "list", HOLDFAST_ROUTES=routed(tmp_path, *(routes or (SHOP,))))
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_with_nothing_to_deliver_all_are_up(db: Db, tmp_path: Path) -> None:
    lines = listed(tmp_path, "confirmation", "events").splitlines()

    assert lines[0].split() == [
        "NAME",
        "STATE",
        "PENDING",
        "WAITING",
        "DEAD",
        "OLDEST",
        "PENDING",
        "LANES",
        "IN",
        "HAND",
    ]
    assert [line.split() for line in lines[1:]] == [
        [name, "up", "0", "0", "0", "-", "0"] for name in ("confirmation", "events")
    ]


def test_what_is_pending_waiting_and_dead_is_counted_and_the_oldest_told(drain_of: OpenDrain, tmp_path: Path) -> None:
    world = Troubled()
    drain = drain_of(world)
    ids = promised(drain.db, *(an_aggregate(lane) for lane in range(6)))
    world.trouble[ids[0]] = NOT_NOW
    drain.run(limit=1)
    left(drain.db, ids[1])
    died(drain.db, ids[2])

    found = fares(drain.db)

    assert (found.pending, found.waiting, found.dead) == (4, 1, 1)
    assert found.oldest_pending_at == row(drain.db, ids[0]).created_at
    said = listed(tmp_path)
    assert (
        "shop          up           4        1     1  2" in said
        and "dead letters: bin/dead-letters list --destination shop" in said
    )


def test_a_backlog_is_counted_to_a_bound_and_said_to_be_more(shop: Db, tmp_path: Path) -> None:
    a_backlog(shop, MOST)
    recorded(shop, an_event(), an_event())
    died(shop, MOST + 1)

    found = fares(shop)

    assert (found.pending, found.waiting, found.dead, found.lower_bounds) == (MOST, 0, 1, ["pending"])
    assert "shop          up     20,000+        0     1  2" in listed(tmp_path)
    assert "nobody delivers at least 20,000 rows." in " ".join(listed(tmp_path, "events").split())


def test_a_count_that_takes_too_long_is_given_up_and_said_so(shop: Db) -> None:
    with shop.begin() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        session.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
        run = turned("destinations", "list")

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("The database is too busy (") and "Run it again" in run.stderr


def test_who_has_lanes_in_hand_is_told(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())
    lane = a_lane(shop)
    assert fares(shop).holders == [lane.holder]

    held = claimed(shop, holder="host:17:0123456789abcdef")

    assert held is None, "there is one lane with something to do"
    assert f"lanes in hand of {lane.holder}" in listed(tmp_path)


def test_one_that_is_down_tells_since_when_why_and_when_it_is_tried(drain_of: OpenDrain, tmp_path: Path) -> None:
    drain = drain_of(Outside(lambda _: BUSY))
    promised(drain.db, an_aggregate())
    drain.run()

    found, state = fares(drain.db), destination(drain.db)

    assert (found.state, found.opened_at, found.next_probe_at) == (State.DOWN, state.opened_at, state.open_until)
    said = " ".join(listed(tmp_path).split())
    assert "down since " in said and "next probe at " in said and "503 busy" in said


def test_one_that_left_the_routes_is_told_with_what_is_pending_and_nothing_is_dropped(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate(), an_aggregate())
    with shop.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == 2).values(destination="rolled-back"))
    before = rows(shop)

    said = " ".join(listed(tmp_path, "events").split())

    assert said.count("not in the routes: nobody delivers 1 row.") == 2
    assert fares(shop, "rolled-back").pending == 1
    assert turned("process-outbox", HOLDFAST_ROUTES=routed(tmp_path, "events")).returncode == 0
    assert rows(shop) == before


def test_one_that_no_worker_has_served_yet_is_told(db: Db, tmp_path: Path) -> None:
    assert "not served yet by any worker: brand-new." in listed(tmp_path, "brand-new", "events")


def test_a_paused_one_gets_nothing_until_it_is_resumed(drain_of: OpenDrain, tmp_path: Path) -> None:
    drain = drain_of(Outside())
    promised(drain.db, an_aggregate())

    paused = turned("destinations", "pause", SHOP, WHY, "--who=ann@ops")
    assert paused.returncode == 0 and paused.stdout.startswith("shop is paused: ")
    assert drain.run() == Tally()
    found = fares(drain.db)
    assert (found.state, found.reason) == (State.PAUSED, "stocktaking (OPS-7) (ann@ops)")
    said = listed(tmp_path)
    assert "stocktaking (OPS-7)" in said and "bin/destinations resume shop" in said
    resumed = turned("destinations", "resume", SHOP, "--why=done", "--who=bob@ops")

    assert resumed.returncode == 0 and drain.run() == Tally(delivered=1)
    done = [(one.action, one.who, one.why, one.selection["destination"]) for one in audited(drain.db)]
    assert done == [("pause", "ann@ops", "stocktaking (OPS-7)", SHOP), ("resume", "bob@ops", "done", SHOP)]
    assert found.paused_at == audited(drain.db)[0].happened_at


def test_one_that_paused_itself_says_what_it_said(drain_of: OpenDrain, tmp_path: Path) -> None:
    drain = drain_of(Outside(lambda _: Unreachable("410 Gone", gone=True)))
    promised(drain.db, an_aggregate())
    drain.run()

    assert (fares(drain.db).state, fares(drain.db).paused_at) == (State.PAUSED, None)
    assert "paused: 410 Gone" in listed(tmp_path)


def test_one_that_paused_itself_was_not_paused_by_who_did_it_before(drain_of: OpenDrain) -> None:
    drain = drain_of(Outside(lambda _: Unreachable("410 Gone", gone=True)))
    turned("destinations", "pause", SHOP, WHY)
    turned("destinations", "resume", SHOP, WHY)
    promised(drain.db, an_aggregate())
    drain.run()

    assert (fares(drain.db).state, fares(drain.db).paused_at) == (State.PAUSED, None)


def test_a_probe_tries_at_once_and_when_it_is_up_everything_leaves(drain_of: OpenDrain) -> None:
    world = Outside(lambda _: BUSY)
    drain = drain_of(world)
    aggregate = an_aggregate()
    ids = promised(drain.db, aggregate, aggregate, *(an_aggregate(lane) for lane in range(5)))
    drain.run()
    world.called.clear()
    world.answer = Outside().answer
    assert drain.run() == Tally()

    run = turned("destinations", "probe", SHOP, WHY)

    assert run.returncode == 0 and "tried at once" in run.stdout
    assert drain.run() == Tally(delivered=7)
    assert sorted(world.called) == ids and world.called.index(ids[0]) < world.called.index(ids[1])
    assert fares(drain.db).state is State.UP
    assert [(one.action, one.rows > 0) for one in audited(drain.db)] == [("probe", True)]


def test_a_probe_of_one_that_is_still_down_costs_one_call(drain_of: OpenDrain) -> None:
    world = Outside(lambda _: BUSY)
    drain = drain_of(world)
    promised(drain.db, *(an_aggregate(lane) for lane in range(5)))
    drain.run()
    world.called.clear()

    turned("destinations", "probe", SHOP, WHY)
    drain.run()

    assert len(world.called) == 1
    assert fares(drain.db).state is State.DOWN
    with drain.db.begin() as session:
        assert set(session.execute(select(outbox.c.attempts)).scalars()) == {0}


@pytest.mark.parametrize(("work", "said"), [("resume", "is not paused"), ("probe", "not known to be down")])
def test_where_there_is_nothing_to_change_nothing_is_changed_and_it_is_said(shop: Db, work: str, said: str) -> None:
    before = everything(shop)

    run = turned("destinations", work, SHOP, WHY)

    assert run.returncode == 0 and said in run.stdout
    assert everything(shop) == before


def test_one_that_is_down_and_paused_is_not_probed(drain_of: OpenDrain) -> None:
    drain = drain_of(Outside(lambda _: BUSY))
    promised(drain.db, an_aggregate())
    drain.run()
    turned("destinations", "pause", SHOP, WHY)
    before = everything(drain.db)

    run = turned("destinations", "probe", SHOP, WHY)

    assert run.returncode == 0 and "it is paused (bin/destinations resume shop" in run.stdout
    assert everything(drain.db) == before


def test_who_pauses_again_is_told_that_it_is_paused(shop: Db) -> None:
    turned("destinations", "pause", SHOP, WHY)
    before = everything(shop)

    assert "paused already" in turned("destinations", "pause", SHOP, "--why=other").stdout
    assert everything(shop) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pause", "nowhere", WHY], "'nowhere'; those that there are: confirmation, events, shop"),
        (["resume", "nowhere", WHY], "'nowhere'"),
        (["probe", "nowhere", WHY], "'nowhere'"),
        (["pause", SHOP], "--why is required"),
        (["pause", SHOP, "--why="], "why: say why"),
        (["stop", SHOP, WHY], "invalid choice"),
        ([], "list"),
    ],
)
def test_what_can_not_be_meant_is_refused_and_changes_nothing(shop: Db, arguments: list[str], said: str) -> None:
    before = everything(shop)

    run = turned("destinations", *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr and "Traceback" not in run.stderr
    assert everything(shop) == before


def test_the_time_that_is_told_is_utc(shop: Db, tmp_path: Path) -> None:
    promised(shop, an_aggregate())

    told = next(word for word in listed(tmp_path).split() if word.endswith("Z") and word[:4].isdigit())

    assert abs(datetime.fromisoformat(told) - datetime.now(UTC)) < timedelta(minutes=1)
    assert standing(shop) == ["ready"]
