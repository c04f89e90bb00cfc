"""bin/dead-letters bury: a pending event is taken out of delivery, with who and why, and after a dry run."""

import json
from uuid import uuid4

import pytest

from domain.reservations.events import RESERVATION_CONFIRM
from tests.support.builders import Db, a_hold, an_item
from tests.support.commands import on_one_line, run_command
from tests.support.operations import audited, mark_delivered
from tests.support.outbox import a_lane, an_aggregate, leases_renewed, recorded_for, row, rows, states, with_shop
from tests.support.refusals import everything

pytestmark = pytest.mark.slow

WHY = "--why=the shop fails for this booking (OPS-7)"


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def test_an_event_is_buried_and_the_audit_has_who_and_why(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate, aggregate)
    event_id = row(shop, 1).event_id

    run = run_command("dead-letters", "bury", f"--event={event_id}", WHY, "--who=ann@ops")

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(
        f"1 pending event buried:\n  booking.created to shop, event {event_id}, after 0 attempts"
    )
    assert f"bin/dead-letters replay --event {event_id} --why TEXT" in run.stdout
    assert all(len(line) <= 100 for line in run.stdout.splitlines())
    assert states(shop) == ["dead", "ready"]
    (done,) = [one for one in audited(shop) if one.action == "bury"]
    assert (done.action, done.who, done.why, done.rows) == ("bury", "ann@ops", WHY.removeprefix("--why="), 1)
    assert "Buried by ann@ops: the shop fails" in on_one_line(run_command("why", str(event_id)).stdout)


def test_an_event_that_is_in_flight_is_said_to_arrive_perhaps(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate)
    a_lane(shop)

    with leases_renewed(shop):
        run = run_command("dead-letters", "bury", f"--reservation={aggregate}", WHY)

    assert "A worker may be sending it at this moment: shop may get it all the same." in on_one_line(run.stdout)


def test_a_dry_run_lists_the_events_and_changes_nothing(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    before = everything(db)

    run = run_command("dead-letters", "bury", f"--reservation={hold.id}", "--dry-run")

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("2 pending events would be buried:\n")
    assert f"reservation {hold.id} is cancelled if it is still a hold" in on_one_line(run.stdout)
    assert run.stdout.endswith("Dry run. Run again with --why TEXT to apply.\n")
    assert everything(db) == before


def test_only_the_events_for_one_destination_can_be_buried(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    bury = ["dead-letters", "bury", f"--reservation={hold.id}", "--destination=events", WHY]

    printed = json.loads(run_command(*bury, "--json").stdout)

    assert (printed["dry_run"], printed["buried"]) == (False, 1)
    (event,) = printed["events"]
    assert (event["type"], event["destination"], event["in_flight"]) == ("booking.created", "events", False)
    assert {one.type for one in rows(db) if one.dead_at is None} == {RESERVATION_CONFIRM}


def test_without_a_pending_event_nothing_is_changed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    mark_delivered(shop, 1)
    before = everything(shop)

    for which in (f"--event={row(shop, 1).event_id}", f"--reservation={uuid4()}"):
        run = run_command("dead-letters", "bury", which, WHY)
        assert (run.returncode, run.stdout) == (1, "")
        assert (
            run.stderr.startswith("No matching event is pending, so nothing was changed.") and "bin/why" in run.stderr
        )
    assert everything(shop) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([WHY], "Give --event or --reservation"),
        ([f"--event={uuid4()}", f"--reservation={uuid4()}", WHY], "Give --event or --reservation"),
        (["--destination=shop", WHY], "Give --event or --reservation"),
        ([f"--event={uuid4()}"], "--why is required"),
        ([f"--event={uuid4()}", "--why= "], "why: say why"),
        ([f"--event={uuid4()}", "--destination=", WHY], "destination: it is empty"),
        (["--event=no-id", WHY], "--event"),
    ],
)
def test_wrong_usage_is_refused_and_changes_nothing(shop: Db, arguments: list[str], message: str) -> None:
    recorded_for(shop, an_aggregate())
    before = everything(shop)

    run = run_command("dead-letters", "bury", *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert message in on_one_line(run.stderr) and "Traceback" not in run.stderr
    assert everything(shop) == before
