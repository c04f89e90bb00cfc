"""bin/api-keys: which keys it makes, and that nobody is left with a key that was never shown."""

import subprocess
from datetime import timedelta

import pytest
from sqlalchemy import text

from domain.access import Role, api_keys
from domain.runtime.errors import Invalid
from domain.runtime.settings import ROOT
from tests.support.builders import Db
from tests.support.commands import bare, on_one_line, run_command, settings_of_tests

pytestmark = pytest.mark.slow


def names(db: Db) -> list[str]:
    with db.begin() as session:
        return [one.name for one in api_keys.find(session)]


def create(db: Db, name: str = "till") -> str:
    with db.begin() as session:
        return api_keys.create(session, name, [Role.STAFF], who="ann")


@pytest.mark.parametrize("days", ["36501", "3650000", "99999999999"])
def test_no_key_lasts_longer_than_a_century(db: Db, days: str) -> None:
    run = run_command("api-keys", "create", "typo", "--role", "staff", "--days", days)

    assert (run.returncode, names(db)) == (2, [])
    assert "36500" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("hours", ["876001", "90000000", "99999999999"])
def test_no_key_serves_on_for_longer_than_a_century(db: Db, hours: str) -> None:
    create(db)

    run = run_command("api-keys", "rotate", "till", "--overlap-hours", hours)

    assert (run.returncode, names(db)) == (2, ["till"])
    assert "876000" in run.stderr and "Traceback" not in run.stderr


def test_the_domain_takes_no_longer_times_either(db: Db) -> None:
    create(db)
    century = timedelta(days=36_501)

    with db.begin() as session:
        with pytest.raises(Invalid, match="days"):
            api_keys.create(session, "typo", [Role.STAFF], lasting=century, who="ann")
        with pytest.raises(Invalid, match="overlap-hours"):
            api_keys.rotate(session, "till", century, who="ann")


@pytest.mark.parametrize("end", ["12020-01-01", "infinity"])
def test_a_key_whose_end_nobody_can_read_is_listed_replaced_and_revoked(db: Db, end: str) -> None:
    create(db, "odd")
    with db.begin() as session:
        session.execute(text("UPDATE api_keys SET expires_at = :end"), {"end": end})

    runs = [run_command("api-keys", *one) for one in (["list"], ["rotate", "odd"], ["list"], ["revoke", "odd"])]

    assert [(run.returncode, run.stderr if run.returncode else "") for run in runs] == [(0, "")] * 4
    assert "9999-12-31" in runs[0].stdout


@pytest.mark.parametrize("output", [" > /dev/full", " > /dev/null", " >&-", " | exec sleep 0"])
@pytest.mark.parametrize("form", ["", "--json"])
def test_a_key_that_can_not_be_shown_is_not_made_and_replaces_none(db: Db, output: str, form: str) -> None:
    create(db)
    # The reader of a pipe has ended before the key is written: a command takes longer to start.
    runs = [
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{ROOT}/bin/api-keys {command} {form}{output}"],
            env=bare(settings_of_tests()),
            capture_output=True,
            text=True,
            check=False,
        )
        for command in ("create desk --role staff", "rotate till --overlap-hours 0")
    ]

    assert [run.returncode for run in runs] == [1, 1]
    for run in runs:
        assert "The key could not be shown" in on_one_line(run.stderr) and "Traceback" not in run.stderr, run.stderr
    with db.begin() as session:
        assert [(one.name, one.expires_at) for one in api_keys.find(session)] == [("till", None)]


@pytest.mark.parametrize("name", [" till", "till ", "", "a\nb"])
def test_a_name_that_looks_like_another_one_is_refused(db: Db, name: str) -> None:
    run = run_command("api-keys", "create", name, "--role", "staff")

    assert (run.returncode, names(db)) == (2, [])
    assert "name: it must have" in run.stderr


ROLES = {"venue": "business", "provider": "provider"}


@pytest.mark.parametrize("option", ROLES)
@pytest.mark.parametrize("value", ["", " ", "a\nb", "x" * 65, " x"])
def test_what_no_item_can_have_is_nothing_to_act_for(db: Db, option: str, value: str) -> None:
    run = run_command("api-keys", "create", "desk", "--role", ROLES[option], f"--{option}", value)

    assert (run.returncode, names(db)) == (2, [])
    assert f"{option}s: " in run.stderr


@pytest.mark.parametrize("kind", ROLES)
def test_a_key_that_acts_for_nobody_is_refused(db: Db, kind: str) -> None:
    run = run_command("api-keys", "create", "desk", "--role", ROLES[kind])

    assert (run.returncode, names(db)) == (2, [])
    assert f"{kind}s: a key with the role {ROLES[kind]} needs at least one {kind}" in on_one_line(run.stderr)


@pytest.mark.parametrize(("option", "role"), [("venue", "staff"), ("provider", "business"), ("venue", "guest")])
def test_a_key_that_would_not_be_limited_to_what_it_is_given_is_not_made(db: Db, option: str, role: str) -> None:
    with_venue = ["--venue", "seaview"] if role == "business" else []
    run = run_command("api-keys", "create", "desk", "--role", role, *with_venue, f"--{option}", "seaview")

    assert (run.returncode, names(db)) == (2, [])
    assert f"{option}s: only the role {ROLES[option]} acts for {option}s" in on_one_line(run.stderr)


def test_who_makes_a_key_for_a_guest_is_warned_that_it_reserves_nothing(db: Db) -> None:
    warned, other = (run_command("api-keys", "create", role, "--role", role) for role in ("guest", "staff"))

    assert (warned.returncode, other.returncode) == (0, 0)
    assert "it can neither reserve nor see a reservation" in on_one_line(warned.stderr)
    assert "reserve" not in other.stderr
