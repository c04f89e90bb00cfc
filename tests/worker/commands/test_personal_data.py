"""bin/rotate-keys and bin/forget-guest: what they do, what they say, and what they never show."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update

from domain.access import audit
from domain.outbox.table import outbox
from domain.privacy.guests import count_by_key
from domain.reservations.table import history, reservations
from domain.runtime.settings import ROOT
from tests.domain.privacy.people import ANN, BOB, a_guest, keyring, many_guests, written
from tests.support.builders import Db
from tests.support.commands import bare, on_one_line, run_command
from tests.support.key_services import DOWN, NAME, STATE, WELL

pytestmark = pytest.mark.slow

OLD, BOTH = keyring("old"), written("new", "old")


def given(text: str, *arguments: str, keys: str = BOTH) -> subprocess.CompletedProcess[str]:
    """Run bin/forget-guest with a text on standard input."""
    return subprocess.run(
        [ROOT / "bin" / "forget-guest", *arguments],
        env=bare({"DATABASE_URL": os.environ["DATABASE_URL"], "PII_KEYS": keys}),
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def known(db: Db) -> dict[str, int]:
    with db.begin() as session:
        return dict(count_by_key(session))


def test_a_rotation_says_what_it_did_and_what_to_do_with_the_old_keys(db: Db) -> None:
    many_guests(db, OLD, 700)
    a_guest(db, keyring("new"))

    run = run_command("rotate-keys", PII_KEYS=BOTH)

    assert (run.returncode, run.stderr) == (0, "")
    assert on_one_line(run.stdout).startswith("700 guests rotated to the key new. All guests have it now.")
    assert known(db) == {"new": 701}
    again = run_command("rotate-keys", "--json", PII_KEYS=BOTH)
    assert json.loads(again.stdout) == {"key": "new", "rotated": 0, "left": {}, "unreadable": [], "complete": True}


def test_a_rotation_with_one_key_has_no_other_keys_to_destroy(db: Db) -> None:
    a_guest(db, OLD)

    run = run_command("rotate-keys", PII_KEYS=written("old"))

    assert (run.returncode, run.stderr) == (0, "")
    assert on_one_line(run.stdout) == "0 guests rotated to the key old. All guests have it, and it is the only key."


def test_a_rotation_by_a_key_service_is_taken_up_when_the_service_is_back(db: Db, tmp_path: Path) -> None:
    many_guests(db, OLD, 10)
    state = tmp_path / "state"
    service = {"PII_KEYS": "", "PII_KEY_SERVICE": NAME, STATE: str(state)}

    state.write_text(DOWN)
    down = run_command("rotate-keys", **service)
    assert (down.returncode, down.stdout) == (1, "")
    assert "The service of PII_KEY_SERVICE can't be reached." in on_one_line(down.stderr)
    assert "can't be reached: its keys were not tried" in run_command("doctor", **service).stdout

    state.write_text(WELL)
    assert run_command("rotate-keys", **service).returncode == 0
    assert known(db) == {"new": 10}


def test_guests_of_a_key_that_is_not_there_are_named_and_the_others_rotated(db: Db) -> None:
    a_guest(db, keyring("lost"))
    a_guest(db, OLD)

    run = run_command("rotate-keys", PII_KEYS=BOTH)

    assert run.returncode == 1
    assert "1 guest has the key lost, which is not in PII_KEYS. Put it back there" in on_one_line(run.stdout)
    assert known(db) == {"new": 1, "lost": 1}


def test_guests_who_can_not_be_read_are_named_and_the_others_rotated(db: Db) -> None:
    damaged, _ = a_guest(db, OLD), a_guest(db, OLD)
    with db.begin() as session:
        session.execute(text("UPDATE guests SET name = email WHERE reservation_id = :id"), {"id": damaged.id})

    run = run_command("rotate-keys", PII_KEYS=BOTH)

    assert run.returncode == 1
    assert "1 guest has the key old, but some can't be read by it" in on_one_line(run.stdout)
    assert known(db) == {"new": 1, "old": 1}


@pytest.mark.parametrize("command", [["rotate-keys"], ["forget-guest", "--email"]])
@pytest.mark.parametrize("keys", ["", "nonsense"])
def test_without_keys_that_can_be_used_nothing_is_done(db: Db, command: list[str], keys: str) -> None:
    run = run_command(*command, PII_KEYS=keys)

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("PII_KEYS: ")


def forgetting(db: Db) -> dict[str, Callable[[], subprocess.CompletedProcess[str]]]:
    """Return each way to forget one guest of two."""
    ann, _ = a_guest(db, OLD), a_guest(db, OLD, BOB)
    with db.begin() as session:
        session.execute(update(reservations).where(reservations.c.id == ann.id).values(guest_id="account"))
    return {
        "reservation": lambda: run_command("forget-guest", "--reservation", str(ann.id)),
        "account": lambda: run_command("forget-guest", "--guest-id", "account"),
        "email": lambda: given("ann@EXAMPLE.com\n", "--email"),
        "telephone": lambda: given("+49301234567", "--telephone"),
    }


@pytest.mark.parametrize("way", ["reservation", "account", "email", "telephone"])
def test_a_guest_is_forgotten_and_nothing_else_changes(db: Db, way: str) -> None:
    run = forgetting(db)[way]
    tables = (reservations, history, outbox)
    with db.begin() as session:
        before = [session.execute(select(table).order_by(table.c.id)).all() for table in tables]

    done = run()

    assert (done.returncode, done.stderr) == (0, "")
    said = on_one_line(done.stdout)
    assert said.startswith("1 guest forgotten. The reservations, their histories and their events are as they were.")
    assert "Backups of the database still have what was destroyed" in said and "bin/rotate-keys" in said
    assert "example" not in said.lower() and "1234567" not in said
    assert known(db) == {"old": 1}
    with db.begin() as session:
        assert [session.execute(select(table).order_by(table.c.id)).all() for table in tables] == before
    assert run().returncode == (0 if way == "reservation" else 1)


@pytest.mark.parametrize("way", [["--guest-id", "account"], ["--email"]])
def test_a_dry_run_counts_and_changes_nothing(db: Db, way: list[str]) -> None:
    forgetting(db)

    run = given(str(ANN.email), *way, "--dry-run")

    assert (run.returncode, run.stdout) == (0, "1 guest would be forgotten. Dry run: nothing was changed.\n")
    assert known(db) == {"old": 2}


def test_all_reservations_of_a_guest_are_found_batch_by_batch(db: Db) -> None:
    many_guests(db, OLD, 1_001, email="many@example.com")

    run = given("many@example.com", "--email", "--json")

    assert json.loads(run.stdout) == {
        "forgotten": 1_001,
        "matching": 1_001,
        "dry_run": False,
        "complete": True,
        "unsearched": {},
    }
    assert known(db) == {}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Say whom to forget"),
        (["--email", "--telephone"], 2, "Say whom to forget"),
        (["--email"], 2, "E-mail address: it is empty"),
        (["--email", "ann@example.com"], 2, "unexpected extra argument"),
        (["--guest-id", "nobody"], 1, "No such guest is known: there never was one,"),
        (["--reservation", str(uuid4())], 1, "There is no reservation with the id"),
    ],
)
def test_nobody_is_forgotten_by_a_mistake(db: Db, arguments: list[str], code: int, said: str) -> None:
    a_guest(db, OLD)

    run = given("", *arguments)

    assert run.returncode == code
    assert said in on_one_line(run.stderr)
    assert known(db) == {"old": 1}


#: The keys of a process whose key of the guests is missing, or another one of the same id.
WITHOUT = {"missing": written("new"), "another one": f"{written('new')},old:{base64.b64encode(bytes(32)).decode()}"}


@pytest.mark.parametrize("keys", WITHOUT)
def test_that_nobody_is_found_is_no_answer_while_a_key_of_guests_is_not_there(db: Db, keys: str) -> None:
    many_guests(db, OLD, 3)

    run = given("0@x.example", "--email", keys=WITHOUT[keys])
    as_json = given("0@x.example", "--email", "--json", keys=WITHOUT[keys])

    assert (run.returncode, run.stdout) == (1, "")
    assert "No such guest is known" not in run.stderr
    assert "3 guests have the key old, which is not in PII_KEYS, or is another one there" in on_one_line(run.stderr)
    assert "--reservation and --guest-id need no key" in on_one_line(run.stderr)
    assert as_json.returncode == 1
    printed = {"forgotten": 0, "matching": 0, "dry_run": False, "complete": False, "unsearched": {"old": 3}}
    assert json.loads(as_json.stdout) == printed
    assert known(db) == {"old": 3}


def test_who_is_found_is_forgotten_and_the_guests_who_can_not_be_found_are_named(db: Db) -> None:
    a_guest(db, OLD)
    a_guest(db, keyring("new"))

    run = given("ann@example.com", "--email", keys=written("new"))

    assert run.returncode == 1
    assert on_one_line(run.stdout).startswith("1 guest forgotten.")
    assert "1 guest has the key old, which is not in PII_KEYS" in on_one_line(run.stdout)
    assert known(db) == {"old": 1}


@pytest.mark.parametrize("way", ["--reservation", "--guest-id"])
def test_the_guest_of_a_reservation_or_an_account_is_forgotten_without_any_key(db: Db, way: str) -> None:
    ann = a_guest(db, OLD)
    with db.begin() as session:
        session.execute(update(reservations).values(guest_id="account"))

    run = run_command("forget-guest", way, str(ann.id) if way == "--reservation" else "account", PII_KEYS="")

    assert (run.returncode, known(db)) == (0, {})


@pytest.mark.parametrize(("address", "dry_run"), [("ann@example.com", True), ("nobody@example.com", False)])
def test_who_has_looked_for_a_guest_and_forgotten_nobody_is_in_the_audit(db: Db, address: str, dry_run: bool) -> None:
    a_guest(db, OLD)

    given(address, "--email", "--who", "eve", "--why", "curious", *(["--dry-run"] if dry_run else []))

    with db.begin() as session:
        (entry,) = audit.find(session, audit.Filter(), limit=10)
    assert (entry.who, entry.action, entry.why, entry.rows) == ("eve", "guest.search", "curious", int(dry_run))


def test_the_doctor_names_a_key_that_is_another_one_than_it_was(db: Db) -> None:
    guest = a_guest(db, OLD)

    run = run_command("doctor", PII_KEYS=WITHOUT["another one"])

    (of_keys,) = [line for line in run.stdout.splitlines() if "PII_KEYS" in line]
    assert f"1 violation: old (it does not open the guest of the reservation {guest.id})" in of_keys


def test_the_doctor_names_the_keys_that_are_missing(db: Db) -> None:
    a_guest(db, OLD)

    missing, there = run_command("doctor", PII_KEYS=written("new")), run_command("doctor", PII_KEYS=BOTH)

    (of_keys,) = [line for line in missing.stdout.splitlines() if "PII_KEYS" in line]
    assert of_keys.startswith("FAIL  every guest has a key of PII_KEYS; 1 violation: old (1 guests). These keys")
    assert "ok    every guest has a key of PII_KEYS" in there.stdout.splitlines()
