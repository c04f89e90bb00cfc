"""bin/dead-letters: dead letters are grouped by their errors, shown, replayed and discarded, with who and why."""

import os
import pty
import pwd
import signal
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from domain.outbox.operations import dead_letters
from domain.outbox.operations.dead_letters import Group
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox
from domain.runtime.errors import Invalid
from tests.support.builders import Db, an_event, recorded
from tests.support.commands import on_one_line, run_command, start_command
from tests.support.operations import audited, mark_dead, mark_delivered
from tests.support.outbox import an_aggregate, recorded_for, row, rows, states, with_shop
from tests.support.refusals import everything
from tests.support.waiting import PATIENCE_SECONDS, wait_until

WHY = "--why=the shop is back (OPS-7)"


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def groups(db: Db, **fields: Any) -> list[Group]:
    with db.begin() as session:
        return list(dead_letters.grouped(session, a_selection(**fields)))


def a_selection(**fields: Any) -> Selection:
    return Selection(among=Among.DEAD, **(fields or {"everything": True}))


def found(db: Db, **fields: Any) -> list[int]:
    with db.begin() as session:
        return [letter.id for letter in dead_letters.find(session, a_selection(**fields), limit=100)]


@pytest.mark.slow
def test_without_dead_letters_nothing_is_listed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    run = run_command("dead-letters", "list")

    assert (run.returncode, run.stdout, run.stderr) == (0, "No dead letters.\n", "")


def test_errors_that_differ_only_in_ids_and_numbers_are_one_group(shop: Db) -> None:
    ids = recorded_for(shop, *(an_aggregate() for _ in range(6)))
    for row_id in ids[:3]:
        mark_dead(shop, row_id, of=f"503 busy: request {uuid4()} of trace 0x{row_id:08x}ff4a took {row_id}.{row_id} ms")
    mark_dead(shop, *ids[3:5], of="404 no such hook")

    largest, other = groups(shop)

    assert (largest.error, largest.rows) == ("# busy: request # of trace # took #.# ms", 3)
    assert (other.error, other.rows) == ("# no such hook", 2)


def test_words_of_hexadecimal_letters_are_not_taken_for_ids(shop: Db) -> None:
    ids = recorded_for(shop, an_aggregate(), an_aggregate())
    mark_dead(shop, ids[0], of="the facade is effaced")
    mark_dead(shop, ids[1], of="the facade is defaced")

    assert {group.error for group in groups(shop)} == {"the facade is effaced", "the facade is defaced"}


def test_a_group_has_one_destination_and_one_type_its_times_and_its_newest_event(db: Db) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate(), an_aggregate())
    recorded(shop, an_event(event_type="booking.cancelled"))
    recorded(with_shop(db, name="other"), an_event())
    first, second, third, fourth = (one.id for one in rows(shop))
    for row_id, days in ((first, 3), (second, 1), (third, 2), (fourth, 2)):
        mark_dead(shop, row_id, ago=timedelta(days=days))

    largest, *others = groups(shop)

    assert len(others) == 2 and len({one.name for one in (largest, *others)}) == 3
    assert (largest.rows, largest.example) == (2, row(shop, second).event_id)
    assert (largest.oldest, largest.newest) == (row(shop, first).dead_at, row(shop, second).dead_at)


@pytest.mark.slow
def test_a_list_shows_each_group_and_the_next_commands_and_no_payload(shop: Db) -> None:
    recorded(shop, an_event(guest_id="Ann Archer"))
    mark_dead(shop, 1, of="422 bad\x1b[31m date")
    (group,) = groups(shop)

    run = run_command("dead-letters", "list")

    assert run.returncode == 0
    assert f"{group.name}  1 row  booking.created to shop" in run.stdout
    assert "# bad [#m date" in run.stdout and "\x1b" not in run.stdout
    assert f"bin/dead-letters replay --group {group.name} --why" in run.stdout
    assert "Ann Archer" not in run.stdout
    assert all(len(line) <= 100 for line in run.stdout.splitlines())


@pytest.mark.slow
def test_a_dead_letter_is_shown_with_its_error_and_with_its_payload_only_on_request(shop: Db) -> None:
    recorded(shop, an_event(guest_id="Ann Archer"))
    mark_dead(shop, 1, of="422 bad date")
    event_id = str(row(shop, 1).event_id)

    by_event, by_row = run_command("dead-letters", "show", event_id), run_command("dead-letters", "show", "1")
    whole = run_command("dead-letters", "show", event_id, "--payload")

    assert by_event.stdout == by_row.stdout
    assert "422 bad date" in by_event.stdout and "12 attempts" in by_event.stdout
    assert "Ann Archer" not in by_event.stdout and "Ann Archer" in whole.stdout


@pytest.mark.slow
def test_a_row_that_is_no_dead_letter_is_not_shown(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    run = run_command("dead-letters", "show", str(row(shop, 1).event_id))

    assert (run.returncode, run.stdout) == (1, "")
    assert "no dead letter" in run.stderr and "bin/why" in run.stderr


def some_letters(shop: Db) -> list[int]:
    """Three dead letters with little in common, a delivered row and a pending one."""
    recorded(shop, an_event(event_type="booking.created"), an_event(event_type="booking.cancelled"))
    recorded(shop, *(an_event() for _ in range(3)))
    with shop.begin() as session:
        # The pattern booking.* must not match this type, which an earlier version may have had.
        session.execute(update(outbox).where(outbox.c.id == 3).values(type="bookings"))
    for row_id, error, days in ((1, "oops 1", 3), (2, "oops 2", 2), (3, "100% wrong", 1)):
        mark_dead(shop, row_id, of=error, ago=timedelta(days=days))
    mark_delivered(shop, 4)
    return [1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"row_id": 2}, [2]),
        ({"type": "booking.*"}, [1, 2]),
        ({"type": "booking_created"}, []),
        ({"type": "%"}, []),
        ({"destination": "shop", "error": "oops"}, [1, 2]),
        ({"error": "0% w"}, [3]),
        ({"error": "%"}, [3]),
        ({"destination": "other"}, []),
        ({"since": datetime.now(UTC) - timedelta(days=2, hours=12)}, [2, 3]),
        ({"before": datetime.now(UTC) - timedelta(days=2, hours=12)}, [1]),
        ({"event_id": UUID(int=7)}, []),
        ({"reservation_id": UUID(int=7)}, []),
    ],
)
def test_a_selection_contains_the_rows_that_match_every_filter(
    shop: Db, fields: dict[str, Any], expected: list[int]
) -> None:
    some_letters(shop)

    assert found(shop, **fields) == expected


def test_a_selection_by_an_id_or_a_group_contains_only_its_rows(shop: Db) -> None:
    some_letters(shop)
    second = row(shop, 2)
    (group,) = groups(shop, row_id=3)

    assert found(shop, event_id=second.event_id) == [2]
    assert found(shop, reservation_id=second.aggregate_id) == [2]
    assert found(shop, group=group.name) == [3]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": None}, "selection"),
        ({"group": "no group"}, "group"),
        ({"since": datetime(2030, 1, 2)}, "since"),  # noqa: DTZ001
        ({"since": datetime(2030, 1, 2, tzinfo=UTC), "before": datetime(2030, 1, 2, tzinfo=UTC)}, "before"),
    ],
)
def test_an_impossible_selection_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        a_selection(**fields)

    assert refused.value.field == field


def test_dead_letters_are_found_page_by_page(shop: Db) -> None:
    ids = recorded_for(shop, *(an_aggregate() for _ in range(5)))
    mark_dead(shop, *ids)

    with shop.begin() as session:
        page = dead_letters.find(session, limit=2)
        rest = dead_letters.find(session, after=page[-1].id, limit=10)

    assert [letter.id for letter in (*page, *rest)] == ids


@pytest.mark.slow
def test_a_group_is_replayed_and_the_audit_has_who_and_why(shop: Db) -> None:
    ids = some_letters(shop)
    (group,) = groups(shop, row_id=1)

    run = run_command("dead-letters", "replay", "--group", group.name, WHY, "--who=ann@ops")

    assert run.returncode == 0 and run.stdout.startswith("1 dead letter replayed. ")
    assert states(shop, *ids) == ["waiting", "dead", "dead"]
    (done,) = audited(shop)
    assert (done.action, done.who, done.why, done.rows) == ("replay", "ann@ops", "the shop is back (OPS-7)", 1)
    assert (done.selection["among"], done.selection["group"]) == ("dead", group.name)


@pytest.mark.slow
def test_without_who_the_audit_has_the_user_and_the_host(shop: Db) -> None:
    some_letters(shop)

    run_command("dead-letters", "replay", "--all", WHY, USER="somebody-else")

    (done,) = audited(shop)
    assert done.who.startswith(f"{pwd.getpwuid(os.getuid()).pw_name}@") and done.rows == 3


@pytest.mark.slow
def test_a_discarded_dead_letter_is_not_listed_and_can_not_be_replayed(shop: Db) -> None:
    some_letters(shop)

    discarded = run_command("dead-letters", "discard", "--error=oops", WHY)
    replayed = run_command("dead-letters", "replay", "--error=oops", WHY)
    again = run_command("dead-letters", "discard", "--error=oops", WHY)

    assert discarded.returncode == 0 and discarded.stdout.startswith("2 dead letters discarded. ")
    for run in (replayed, again):
        assert (run.returncode, run.stdout, run.stderr) == (1, "", "No matching dead letters. Nothing was changed.\n")
    assert [group.rows for group in groups(shop)] == [1]
    assert states(shop, 1, 2, 3) == ["dead"] * 3
    assert [(done.action, done.rows) for done in audited(shop)] == [("discard", 2)]
    assert "can't be replayed any more" in run_command("dead-letters", "show", "1").stdout


@pytest.mark.slow
@pytest.mark.parametrize("action", ["replay", "discard"])
def test_a_dry_run_counts_and_changes_nothing(shop: Db, action: str) -> None:
    some_letters(shop)
    before = everything(shop)

    run = run_command("dead-letters", action, "--type=booking.*", "--dry-run")

    assert run.returncode == 0 and run.stdout.startswith("2 dead letters would be ")
    assert run.stdout.endswith(" Dry run. Run again with --why TEXT to apply.\n")
    assert everything(shop) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "--all"], "--why is required"),
        (["discard", "--all"], "--why is required"),
        (["discard", "--all", "--why= "], "why: say why"),
        (["discard", "--all", WHY, "--who="], "who: say who"),
        (["replay", WHY], "selection: it has no filter"),
        (["discard", WHY], "selection: it has no filter"),
        (["replay", "--id=0", WHY], "--id"),
        (["replay", f"--id={2**63}", WHY], "--id"),
        (["replay", "--event=no-id", WHY], "--event"),
        (["replay", "--since=yesterday", WHY], "--since"),
        (["replay", "--since=2030-01-31T12:00:00", WHY], "with UTC offset"),
        (["replay", "--since=2230-01-31T12:00:00Z", WHY], "future"),
        (["replay", "--destination=shop", "--type=", WHY], "type: it is empty"),
        (["discard", "--destination=shop", "--error=", WHY], "error: it is empty"),
        (["replay", "--all", "--rate=0", WHY], "--rate"),
        (["show", "no-id"], "EVENT_ID|ROW"),
        ([], "list"),
    ],
)
def test_wrong_usage_is_refused_and_changes_nothing(shop: Db, arguments: list[str], message: str) -> None:
    some_letters(shop)
    before = everything(shop)

    run = run_command("dead-letters", *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert message in on_one_line(run.stderr) and "Traceback" not in run.stderr
    assert everything(shop) == before


@pytest.mark.slow
def test_a_discard_of_several_batches_has_one_audit_record(shop: Db) -> None:
    ids = recorded_for(shop, *(an_aggregate() for _ in range(1_100)))
    mark_dead(shop, *ids)

    run = run_command("dead-letters", "discard", "--all", WHY)

    assert run.stdout.startswith("1,100 dead letters discarded.")
    assert [done.rows for done in audited(shop)] == [1_100]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_replay_that_is_stopped_half_way_has_recorded_what_it_did(shop: Db, end: signal.Signals) -> None:
    ids = recorded_for(shop, *(an_aggregate() for _ in range(200)))
    mark_dead(shop, *ids)
    process = start_command("dead-letters", "replay", "--all", WHY, "--rate=20")
    wait_until("it has begun", lambda: any(done.rows > 5 for done in audited(shop)))

    process.send_signal(end)
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)

    (done,) = audited(shop)
    with shop.begin() as session:
        marked = len(session.execute(select(outbox.c.id).where(outbox.c.replayed_at.is_not(None))).all())
    assert 0 < done.rows == marked < 200
    if end is not signal.SIGKILL:
        assert process.returncode == 1
        assert printed.decode().startswith(f"Stopped: {done.rows} of 200 dead letters replayed.")
        assert b"--before" in printed


@pytest.mark.slow
def test_no_more_rows_are_changed_per_second_than_the_rate(shop: Db) -> None:
    """The first batch is changed at once, each later one in its turn: 20 rows at 10 per second take over a second."""
    ids = recorded_for(shop, *(an_aggregate() for _ in range(20)))
    mark_dead(shop, *ids)

    run_command("dead-letters", "replay", "--all", WHY, "--rate=10")

    with shop.begin() as session:
        times = list(session.execute(select(outbox.c.replayed_at).order_by(outbox.c.id)).scalars())
    assert times[-1] - times[0] > timedelta(seconds=1)
    assert times == sorted(times)


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_only(shop: Db) -> None:
    mark_dead(shop, *recorded_for(shop, an_aggregate()))
    end, terminal = pty.openpty()

    process = start_command("dead-letters", "discard", "--all", WHY, stderr=terminal, TERM="xterm")
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    os.close(terminal)
    shown = os.read(end, 10_000)
    os.close(end)

    assert b"Discard" in shown and b"1/1" in shown
    assert printed.startswith(b"1 dead letter discarded.")


@pytest.mark.slow
def test_a_dead_letter_without_an_error_is_listed_and_shown(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    mark_dead(shop, 1)
    with shop.begin() as session:
        session.execute(update(outbox).values(last_error=None))

    assert "no error was recorded" in run_command("dead-letters", "list").stdout
    assert "none was recorded" in run_command("dead-letters", "show", "1").stdout
