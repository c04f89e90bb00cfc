"""With --json a command prints one object and nothing else, with the members that its help describes."""

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import rich_click as click
from sqlalchemy import func, text, update

from domain.outbox.operations import dead_letters, destinations
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox
from domain.runtime.logs import printable
from tests.support.builders import Db, an_item, an_overdue_hold
from tests.support.commands import run_command
from tests.support.operations import ENTRY, mark_dead, mark_delivered
from tests.support.outbox import SHOP, a_lane, an_aggregate, leases_renewed, recorded_for, row, states, with_shop
from tests.worker.commands.every_command import COMMANDS
from worker.commands.output import instant, print_json, table

pytestmark = pytest.mark.slow

WHY = "--why=test"

STATUS = {
    "name": str,
    "condition": str,
    "routed": bool,
    "reason": str | None,
    "paused_at": str | None,
    "down_since": str | None,
    "next_probe_at": str | None,
    "pending": int,
    "waiting": int,
    "dead": int,
    "lower_bounds": list,
    "oldest_pending_at": str | None,
    "lanes_leased": int,
    "holders": list,
}


@pytest.fixture
def shop(db: Db) -> Iterator[Db]:
    """The shop with a dead letter, a delivered row, and two rows of a leased lane, the second after the first."""
    shop = with_shop(db)
    aggregate = an_aggregate()
    recorded_for(shop, an_aggregate(1), an_aggregate(2), aggregate, aggregate)
    mark_dead(shop, 1, of="503 busy")
    mark_delivered(shop, 2)
    a_lane(shop)
    with leases_renewed(shop):
        yield shop


def printed(*arguments: str, code: int = 0, **environment: str) -> Any:
    """Return the object that a command prints, after checking that there is nothing else and that its help names it."""
    run = run_command(*arguments, "--json", **environment)
    assert run.returncode == code, run.stderr
    assert run.stdout.count("\n") == 1, run
    found = json.loads(run.stdout)
    command = COMMANDS.get(arguments[:2]) or COMMANDS[arguments[:1]]
    (documented,) = [one.help for one in command.params if isinstance(one, click.RichOption) and one.name == "as_json"]
    assert [name for name in _members(found) if not re.search(rf"\b{name}\b", documented or "")] == []
    return found


def _members(value: Any) -> set[str]:
    if isinstance(value, dict):
        hidden = {"headers", "payload"} & value.keys()
        return set(value) | {name for key in value.keys() - hidden for name in _members(value[key])}
    return {name for one in value for name in _members(one)} if isinstance(value, list) else set()


def test_the_statuses_of_the_destinations(shop: Db) -> None:
    with shop.begin() as session:
        destinations.pause(session, SHOP, ENTRY)

    found = printed("destinations", "list")

    assert found.keys() == {"destinations"}
    (status,) = [one for one in found["destinations"] if one["name"] == SHOP]
    assert status.keys() == STATUS.keys()
    assert all(isinstance(status[name], kind) for name, kind in STATUS.items())
    assert (status["condition"], status["reason"]) == ("paused", "stocktaking (ann)")
    assert (status["pending"], status["waiting"], status["dead"]) == (2, 0, 1)
    assert status["lanes_leased"] == 1 and len(status["holders"]) == 1
    assert status["routed"] is False and status["oldest_pending_at"].endswith("Z")


@pytest.mark.parametrize("action", ["pause", "resume", "probe"])
def test_a_change_of_a_destination(shop: Db, action: str) -> None:
    assert printed("destinations", action, SHOP, WHY) == {
        "name": SHOP,
        "action": action,
        "changed": action == "pause",
    }


def test_groups_of_dead_letters(shop: Db) -> None:
    found = printed("dead-letters", "list")

    letter = row(shop, 1)
    (group,) = found["groups"]
    assert found.keys() == {"groups"}
    assert group == {
        "group": group["group"],
        "destination": SHOP,
        "type": "booking.created",
        "error": "# busy",
        "rows": 1,
        "oldest": group["newest"],
        "newest": letter.dead_at.isoformat().replace("+00:00", "Z"),
        "example_event_id": str(letter.event_id),
    }


def test_dead_letters(shop: Db) -> None:
    found = printed("dead-letters", "show", "1")
    whole = printed("dead-letters", "show", "1", "--payload")

    (letter,) = found["dead_letters"]
    assert letter.keys() == {
        "id",
        "event_id",
        "reservation_id",
        "destination",
        "type",
        "group",
        "attempts",
        "error",
        "created_at",
        "dead_at",
        "replayed_at",
        "discarded_at",
        "headers",
    }
    assert (letter["id"], letter["attempts"], letter["error"], letter["replayed_at"]) == (1, 12, "503 busy", None)
    assert whole["dead_letters"] == [letter | {"payload": row(shop, 1).payload}]
    assert printed("dead-letters", "show", "2", code=1) == {"dead_letters": []}


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_a_change_of_dead_letters(shop: Db, action: str) -> None:
    counted = printed("dead-letters", action, "--all", "--dry-run")
    changed = printed("dead-letters", action, "--all", WHY)
    nothing = printed("dead-letters", action, "--all", WHY, code=1)

    for found in (counted, changed, nothing):
        assert datetime.fromisoformat(found.pop("before")).tzinfo
    assert counted == {"matching": 1, "changed": 0, "skipped_steps": 0, "dry_run": True, "complete": False}
    assert changed == {"matching": 1, "changed": 1, "skipped_steps": 0, "dry_run": False, "complete": True}
    assert nothing == {"matching": 0, "changed": 0, "skipped_steps": 0, "dry_run": False, "complete": False}


def test_a_replay_of_delivered_rows(shop: Db) -> None:
    found = printed("replay", "--destination=shop", WHY)

    assert (found["matching"], found["changed"], found["complete"]) == (1, 1, True)
    assert states(shop, 2) == ["waiting"]


def test_explanations(shop: Db) -> None:
    with shop.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == 4).values(available_at=func.now() + timedelta(hours=1)))
    aggregate_id = row(shop, 3).aggregate_id

    first, second = printed("why", str(aggregate_id))["deliveries"]

    assert first.keys() == second.keys()
    assert first["event_id"] == str(row(shop, 3).event_id) and first["reservation_id"] == str(aggregate_id)
    assert (first["type"], first["destination"], first["replayed_at"]) == ("booking.created", SHOP, None)
    assert [state["kind"] for state in first["states"]] == ["unrouted", "leased"]
    assert [state["kind"] for state in second["states"]] == [
        "unrouted",
        "blocked_by_earlier_event",
        "waiting",
        "leased",
    ]
    assert second["states"][1] == {
        "kind": "blocked_by_earlier_event",
        "event_id": first["event_id"],
        "type": "booking.created",
    }


def test_the_end_of_a_delivery(shop: Db) -> None:
    with shop.begin() as session:
        dead_letters.discard(session, Batch(selection=Selection(among=Among.DEAD, everything=True), entry=ENTRY))

    (dead,) = printed("why", str(row(shop, 1).event_id))["deliveries"]
    (done,) = printed("why", str(row(shop, 2).event_id))["deliveries"]

    assert [state.keys() for state in (*dead["states"], *done["states"])] == [{"kind", "at", "error"}, {"kind", "at"}]
    assert [state["kind"] for state in (*dead["states"], *done["states"])] == ["discarded", "delivered"]


def test_findings_of_the_doctor(db: Db) -> None:
    well = printed("doctor")
    an_item(db, sku="MUG-BLUE")
    with db.begin() as session:
        session.execute(text("UPDATE items SET stock_quantity = stock_quantity + 1"))

    ill = printed("doctor", code=1)

    assert well["ok"] is True and not any(finding["violations"] for finding in well["findings"])
    assert ill["ok"] is False
    (finding,) = [finding for finding in ill["findings"] if finding["violations"]]
    assert finding.keys() == {"title", "violations", "named", "advice", "misses"}
    assert (finding["violations"], finding["named"]) == (1, ["MUG-BLUE"])


def test_what_process_outbox_delivered(db: Db) -> None:
    assert printed("process-outbox") == {"delivered": 0, "waiting": 0, "dead": 0, "fenced": 0, "held_back": []}


def test_beside_events_on_standard_output_the_object_is_the_last_line(db: Db) -> None:
    recorded_for(with_shop(db, name="log"), an_aggregate())

    run = run_command("process-outbox", "--json")

    event, summary = map(json.loads, run.stdout.splitlines())
    assert event["event_type"] == "booking.created" and summary["delivered"] == 1


def test_what_expire_reservations_expired(db: Db) -> None:
    an_overdue_hold(db, an_item(db))

    assert printed("expire-reservations") == {"expired": 1}


def test_what_prune_deleted(db: Db) -> None:
    assert printed("prune") == {
        "deleted": {"idempotency_keys": 0, "delivered_rows": 0, "discarded_rows": 0, "feed_events": 0},
        "complete": True,
    }


def test_the_revisions_of_a_migration(db: Db) -> None:
    found = printed("migrate")

    assert found.keys() == {"revision_before", "revision"}
    assert found["revision"] == found["revision_before"]


def test_the_list_of_commands() -> None:
    found = printed("help")

    assert {
        "name": "bin/doctor",
        "topic": "Operate it",
        "summary": "Check that nothing is oversold, lost or stuck.",
    } in (found["commands"])


def test_a_value_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError):
        print_json(value=object())


def test_text_of_a_server_can_not_control_the_terminal() -> None:
    assert printable("422 bad\x1b[31m\r\n\x9bdate") == "422 bad [31m date"
    assert printable(None) == ""


def test_a_column_of_numbers_is_aligned_to_the_right() -> None:
    assert table(("NAME", "ROWS"), [("shop", "1,000+"), ("other", "7")]) == [
        "NAME     ROWS",
        "shop   1,000+",
        "other       7",
    ]


def test_an_instant_that_is_unknown_is_a_dash() -> None:
    assert instant(None) == "-"
