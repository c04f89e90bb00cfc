"""Dead letters: grouped by what they died of, shown, sent again, given up; each with who and why."""

import os
import pty
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
from tests.support.commands import PATIENCE_SECONDS, turned, turning
from tests.support.operations import audited, died, left
from tests.support.outbox import an_aggregate, promised, row, rows, standing, with_shop
from tests.support.refusals import everything
from tests.support.serving import wait_until

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


def test_without_dead_letters_nothing_is_listed(shop: Db) -> None:
    promised(shop, an_aggregate())

    run = turned("dead-letters", "list")

    assert (run.returncode, run.stdout, run.stderr) == (0, "No dead letters.\n", "")


def test_errors_that_differ_in_ids_and_numbers_alone_are_one_group(shop: Db) -> None:
    ids = promised(shop, *(an_aggregate() for _ in range(6)))
    for row_id in ids[:3]:
        died(shop, row_id, of=f"503 busy: request {uuid4()} of trace 0x{row_id:08x}ff4a took {row_id}.{row_id} ms")
    died(shop, *ids[3:5], of="404 no such hook")

    largest, other = groups(shop)

    assert (largest.error, largest.rows) == ("# busy: request # of trace # took #.# ms", 3)
    assert (other.error, other.rows) == ("# no such hook", 2)


def test_words_are_no_numbers(shop: Db) -> None:
    ids = promised(shop, an_aggregate(), an_aggregate())
    died(shop, ids[0], of="the facade is effaced")
    died(shop, ids[1], of="the facade is defaced")

    assert {group.error for group in groups(shop)} == {"the facade is effaced", "the facade is defaced"}


def test_a_group_has_one_destination_and_one_type_and_tells_its_time_and_its_newest_event(db: Db) -> None:
    shop = with_shop(db)
    promised(shop, an_aggregate(), an_aggregate())
    recorded(shop, an_event(event_type="booking.cancelled"))
    recorded(with_shop(db, name="other"), an_event())
    first, second, third, fourth = (one.id for one in rows(shop))
    for row_id, days in ((first, 3), (second, 1), (third, 2), (fourth, 2)):
        died(shop, row_id, ago=timedelta(days=days))

    largest, *others = groups(shop)

    assert len(others) == 2 and len({one.name for one in (largest, *others)}) == 3
    assert (largest.rows, largest.example) == (2, row(shop, second).event_id)
    assert (largest.oldest, largest.newest) == (row(shop, first).dead_at, row(shop, second).dead_at)


def test_a_list_tells_each_group_and_how_to_go_on_and_nothing_of_a_payload(shop: Db) -> None:
    recorded(shop, an_event(guest_id="Ann Archer"))
    died(shop, 1, of="422 bad\x1b[31m date")
    (group,) = groups(shop)

    run = turned("dead-letters", "list")

    assert run.returncode == 0
    assert f"{group.name}  1 row  booking.created to shop" in run.stdout
    assert "# bad [#m date" in run.stdout and "\x1b" not in run.stdout
    assert f"bin/dead-letters replay --group {group.name} --why" in run.stdout
    assert "Ann Archer" not in run.stdout
    assert all(len(line) <= 100 for line in run.stdout.splitlines())


def test_a_letter_is_shown_with_its_error_and_its_payload_only_if_asked_for(shop: Db) -> None:
    recorded(shop, an_event(guest_id="Ann Archer"))
    died(shop, 1, of="422 bad date")
    event_id = str(row(shop, 1).event_id)

    by_event, by_row = turned("dead-letters", "show", event_id), turned("dead-letters", "show", "1")
    whole = turned("dead-letters", "show", event_id, "--payload")

    assert by_event.stdout == by_row.stdout
    assert "422 bad date" in by_event.stdout and "12 attempts" in by_event.stdout
    assert "Ann Archer" not in by_event.stdout and "Ann Archer" in whole.stdout


def test_what_is_no_dead_letter_is_not_shown_and_said_so(shop: Db) -> None:
    promised(shop, an_aggregate())

    run = turned("dead-letters", "show", str(row(shop, 1).event_id))

    assert run.returncode == 1
    assert "no dead letter" in run.stdout and "bin/why" in run.stdout


def some_letters(shop: Db) -> list[int]:
    """Three dead letters with little in common, and what is no dead letter."""
    recorded(shop, an_event(event_type="booking.created"), an_event(event_type="booking.cancelled"))
    recorded(shop, *(an_event() for _ in range(3)))
    with shop.begin() as session:
        # Of a type that an earlier version may have had, and the pattern booking.* must not match.
        session.execute(update(outbox).where(outbox.c.id == 3).values(type="bookings"))
    for row_id, error, days in ((1, "oops 1", 3), (2, "oops 2", 2), (3, "100% wrong", 1)):
        died(shop, row_id, of=error, ago=timedelta(days=days))
    left(shop, 4)
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
        ({"until": datetime.now(UTC) - timedelta(days=2, hours=12)}, [1]),
        ({"event_id": UUID(int=7)}, []),
        ({"reservation_id": UUID(int=7)}, []),
    ],
)
def test_a_selection_means_what_fits_all_that_is_given(shop: Db, fields: dict[str, Any], expected: list[int]) -> None:
    some_letters(shop)

    assert found(shop, **fields) == expected


def test_a_selection_by_identity_or_group_means_just_that(shop: Db) -> None:
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
        ({"since": datetime(2030, 1, 2, tzinfo=UTC), "until": datetime(2030, 1, 2, tzinfo=UTC)}, "until"),
    ],
)
def test_a_selection_that_can_not_be_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        a_selection(**fields)

    assert refused.value.field == field


def test_letters_are_found_page_by_page(shop: Db) -> None:
    ids = promised(shop, *(an_aggregate() for _ in range(5)))
    died(shop, *ids)

    with shop.begin() as session:
        page = dead_letters.find(session, limit=2)
        rest = dead_letters.find(session, after=page[-1].id, limit=10)

    assert [letter.id for letter in (*page, *rest)] == ids


def test_a_group_is_replayed_with_who_and_why(shop: Db) -> None:
    ids = some_letters(shop)
    (group,) = groups(shop, row_id=1)

    run = turned("dead-letters", "replay", "--group", group.name, WHY, "--who=ann@ops")

    assert run.returncode == 0 and run.stdout.startswith("1 dead letter replayed. ")
    assert standing(shop, *ids) == ["waiting", "dead", "dead"]
    (done,) = audited(shop)
    assert (done.action, done.who, done.why, done.rows) == ("replay", "ann@ops", "the shop is back (OPS-7)", 1)
    assert (done.selection["among"], done.selection["group"]) == ("dead", group.name)


def test_without_who_it_is_whoever_is_at_the_keyboard(shop: Db) -> None:
    some_letters(shop)

    turned("dead-letters", "replay", "--all", WHY, USER="ann")

    (done,) = audited(shop)
    assert done.who.startswith("ann@") and done.rows == 3


def test_what_was_discarded_is_out_of_the_list_and_can_not_be_replayed(shop: Db) -> None:
    some_letters(shop)

    discarded = turned("dead-letters", "discard", "--error=oops", WHY)
    replayed = turned("dead-letters", "replay", "--error=oops", WHY)
    again = turned("dead-letters", "discard", "--error=oops", WHY)

    assert discarded.returncode == 0 and discarded.stdout.startswith("2 dead letters discarded. ")
    for run in (replayed, again):
        assert (run.returncode, run.stdout, run.stderr) == (1, "", "No dead letter fits. Nothing was changed.\n")
    assert [group.rows for group in groups(shop)] == [1]
    assert standing(shop, 1, 2, 3) == ["dead"] * 3
    assert [(done.action, done.rows) for done in audited(shop)] == [("discard", 2)]
    assert "can't be replayed any more" in turned("dead-letters", "show", "1").stdout


@pytest.mark.parametrize("work", ["replay", "discard"])
def test_a_dry_run_counts_and_changes_nothing(shop: Db, work: str) -> None:
    some_letters(shop)
    before = everything(shop)

    run = turned("dead-letters", work, "--type=booking.*", "--dry-run")

    assert run.returncode == 0 and run.stdout.startswith("2 dead letters would be ")
    assert everything(shop) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "--all"], "--why is required"),
        (["discard", "--all"], "--why is required"),
        (["discard", "--all", "--why= "], "why: say why"),
        (["discard", "--all", WHY, "--who="], "who: say who"),
        (["replay", WHY], "names nothing"),
        (["discard", WHY], "names nothing"),
        (["replay", "--id=0", WHY], "--id"),
        (["replay", f"--id={2**63}", WHY], "--id"),
        (["replay", "--event=no-id", WHY], "--event"),
        (["replay", "--since=yesterday", WHY], "--since"),
        (["replay", "--since=2030-01-31T12:00:00", WHY], "with its offset"),
        (["replay", "--since=2230-01-31T12:00:00Z", WHY], "future"),
        (["replay", "--destination=shop", "--type=", WHY], "type: it is empty"),
        (["discard", "--destination=shop", "--error=", WHY], "error: it is empty"),
        (["replay", "--all", "--rate=0", WHY], "--rate"),
        (["show", "no-id"], "EVENT_ID|ROW"),
        ([], "list"),
    ],
)
def test_what_can_not_be_meant_is_refused_and_changes_nothing(shop: Db, arguments: list[str], said: str) -> None:
    some_letters(shop)
    before = everything(shop)

    run = turned("dead-letters", *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr and "Traceback" not in run.stderr
    assert everything(shop) == before


def test_a_discard_goes_batch_by_batch_and_is_written_down_once(shop: Db) -> None:
    ids = promised(shop, *(an_aggregate() for _ in range(1_100)))
    died(shop, *ids)

    run = turned("dead-letters", "discard", "--all", WHY)

    assert run.stdout.startswith("1,100 dead letters discarded.")
    assert [done.rows for done in audited(shop)] == [1_100]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_replay_that_is_ended_in_its_midst_has_written_down_what_it_did(shop: Db, end: signal.Signals) -> None:
    ids = promised(shop, *(an_aggregate() for _ in range(200)))
    died(shop, *ids)
    key = turning("dead-letters", "replay", "--all", WHY, "--rate=20")
    wait_until("it has begun", lambda: any(done.rows > 5 for done in audited(shop)))

    key.send_signal(end)
    said, _ = key.communicate(timeout=PATIENCE_SECONDS)

    (done,) = audited(shop)
    with shop.begin() as session:
        marked = len(session.execute(select(outbox.c.id).where(outbox.c.replayed_at.is_not(None))).all())
    assert 0 < done.rows == marked < 200
    if end is not signal.SIGKILL:
        assert key.returncode == 1
        assert said.decode().startswith(f"Stopped: {done.rows} of 200 dead letters replayed.")
        assert b"--until" in said


def test_no_more_rows_a_second_go_than_asked_for(shop: Db) -> None:
    """The first batch goes at once, each further one in its time: 20 at 10 a second take a second and more."""
    ids = promised(shop, *(an_aggregate() for _ in range(20)))
    died(shop, *ids)

    turned("dead-letters", "replay", "--all", WHY, "--rate=10")

    with shop.begin() as session:
        times = list(session.execute(select(outbox.c.replayed_at).order_by(outbox.c.id)).scalars())
    assert times[-1] - times[0] > timedelta(seconds=1)
    assert times == sorted(times)


def test_progress_is_shown_on_a_terminal_only(shop: Db) -> None:
    died(shop, *promised(shop, an_aggregate()))
    end, terminal = pty.openpty()

    key = turning("dead-letters", "discard", "--all", WHY, stderr=terminal, TERM="xterm")
    said, _ = key.communicate(timeout=PATIENCE_SECONDS)
    os.close(terminal)
    shown = os.read(end, 10_000)
    os.close(end)

    assert b"Discard" in shown and b"1/1" in shown
    assert said.startswith(b"1 dead letter discarded.")


def test_a_database_that_is_down_is_trouble_and_said_so() -> None:
    run = turned("dead-letters", "list", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")

    assert run.returncode == 1
    assert "can't be reached" in run.stderr and "Traceback" not in run.stderr


def test_a_letter_without_an_error_is_told_as_well(shop: Db) -> None:
    promised(shop, an_aggregate())
    died(shop, 1)
    with shop.begin() as session:
        session.execute(update(outbox).values(last_error=None))

    assert "no error was noted" in turned("dead-letters", "list").stdout
    assert "none was noted" in turned("dead-letters", "show", "1").stdout
