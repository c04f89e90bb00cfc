"""bin/destinations routes and use-routes: comparing routes with those in force, and putting them in force."""

import json
from pathlib import Path

import pytest

from tests.support.builders import Db, an_item, an_overdue_hold
from tests.support.commands import a_routes_file, on_one_line, run_command

pytestmark = pytest.mark.slow

WHY = "--why=the shop gets a log (OPS-7)"


@pytest.fixture
def former(tmp_path: Path) -> str:
    directory = tmp_path / "former"
    directory.mkdir()
    return a_routes_file(directory, "shop")


@pytest.fixture
def present(tmp_path: Path) -> str:
    directory = tmp_path / "present"
    directory.mkdir()
    return a_routes_file(directory, "shop", "journal")


def test_without_any_process_that_has_recorded_no_routes_are_in_force(db: Db, former: str) -> None:
    run = run_command("destinations", "routes", HOLDFAST_ROUTES=former)

    assert run.returncode == 0
    assert run.stdout.splitlines()[1].split() == ["shop", "-", "*"]
    assert "No routes are in force yet" in run.stdout


def test_the_routes_are_compared_with_those_in_force(db: Db, former: str, present: str) -> None:
    assert run_command("expire-reservations", HOLDFAST_ROUTES=former).returncode == 0

    same = run_command("destinations", "routes", HOLDFAST_ROUTES=former)
    other = run_command("destinations", "routes", HOLDFAST_ROUTES=present)

    assert (same.returncode, other.returncode) == (0, 1)
    assert "These routes are those in force" in same.stdout
    assert [line.split() for line in other.stdout.splitlines()[:3]] == [
        ["NAME", "IN", "FORCE", "HERE"],
        ["journal", "-", "*"],
        ["shop", "*", "*"],
    ]
    assert "bin/destinations use-routes --why" in other.stdout


@pytest.mark.parametrize("command", [["expire-reservations"], ["process-outbox"]])
def test_a_command_that_records_does_nothing_by_other_routes_until_they_are_put_in_force(
    db: Db, former: str, present: str, command: list[str]
) -> None:
    run_command("expire-reservations", HOLDFAST_ROUTES=former)
    an_overdue_hold(db, an_item(db))

    refused = run_command(*command, HOLDFAST_ROUTES=present)
    changed = run_command("destinations", "use-routes", WHY, HOLDFAST_ROUTES=present)
    accepted = run_command(*command, HOLDFAST_ROUTES=present)
    too_late = run_command(*command, HOLDFAST_ROUTES=former)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "journal: added, with *" in refused.stderr and "Nothing was done." in refused.stderr
    assert changed.returncode == 0 and "journal: added, with *" in changed.stdout
    assert "Restart every process" in on_one_line(changed.stdout)
    assert accepted.returncode == 0, accepted.stderr
    assert too_late.returncode == 2 and "journal: missing, had *" in too_late.stderr


def test_routes_that_are_in_force_already_change_nothing(db: Db, former: str) -> None:
    run_command("destinations", "use-routes", WHY, HOLDFAST_ROUTES=former)

    again = run_command("destinations", "use-routes", WHY, HOLDFAST_ROUTES=former)

    assert (again.returncode, again.stdout) == (0, "These routes are in force already. Nothing was changed.\n")


def test_both_commands_print_json(db: Db, former: str, present: str) -> None:
    nothing = json.loads(run_command("destinations", "routes", "--json", HOLDFAST_ROUTES=former).stdout)
    used = json.loads(run_command("destinations", "use-routes", WHY, "--json", HOLDFAST_ROUTES=former).stdout)
    other = json.loads(run_command("destinations", "routes", "--json", HOLDFAST_ROUTES=present).stdout)

    assert (nothing["in_force"], nothing["here"], nothing["same"]) == (None, {"shop": ["*"]}, False)
    assert used == {"added": ["shop"], "missing": [], "changed": []}
    assert (other["same"], other["added"], other["why"]) == (False, ["journal"], "the shop gets a log (OPS-7)")
