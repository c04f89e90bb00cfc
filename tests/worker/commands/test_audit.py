"""bin/audit: who did what, and whether what was recorded is as it was."""

import json
import os
import pwd
import socket
from typing import Any

import pytest

from tests.support.audit import FORGED, forge, last_hash, recorded, sealed, tamper
from tests.support.builders import Db
from tests.support.commands import on_one_line, run_command

pytestmark = pytest.mark.slow


def listed(*arguments: str) -> Any:
    run = run_command("audit", "list", *arguments, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def actions() -> list[tuple[str, str, str | None, str | None]]:
    """Return what is in the audit, the oldest first."""
    return [(one["action"], one["who"], one["subject"], one["why"]) for one in reversed(listed()["entries"])]


def test_api_keys_that_are_made_replaced_and_revoked_are_in_the_audit(db: Db) -> None:
    run_command("api-keys", "create", "till", "--role", "staff", "--role", "operator", "--who", "ann", "--why", "OPS-7")
    run_command("api-keys", "rotate", "till", "--who", "ben")
    run_command("api-keys", "revoke", "till", "--who", "cleo")
    assert run_command("api-keys", "revoke", "till", "--who", "dan").returncode == 2

    assert actions() == [
        ("api-key.create", "ann", "key:till", "OPS-7"),
        ("api-key.rotate", "ben", "key:till", None),
        ("api-key.revoke", "cleo", "key:till", None),
    ]
    assert listed("--action", "api-key.create")["entries"][0]["selection"] == {"roles": "operator, staff"}
    assert "hf_" not in run_command("audit", "list", "--json").stdout


def test_without_who_the_audit_has_the_user_and_the_host(db: Db) -> None:
    run_command("api-keys", "create", "till", "--role", "staff")

    ((_, who, _, _),) = actions()
    assert who == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def test_who_runs_a_command_is_not_what_the_environment_says_and_sudo_is_shown(db: Db) -> None:
    names = {"USER": "eve", "LOGNAME": "eve", "SUDO_USER": "ann"}

    run_command("api-keys", "create", "till", "--role", "staff", **names)

    ((_, who, _, _),) = actions()
    assert who == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()} (sudo by ann)"


@pytest.mark.parametrize("who", ["user:boss", "key:till", " user:boss", "User:boss", "KEY:till"])
@pytest.mark.parametrize(
    "command", [["api-keys", "create", "till", "--role", "staff"], ["replay", "--all", "--why", "OPS-7"]]
)
def test_nobody_gives_the_name_of_somebody_who_sends_requests(db: Db, command: list[str], who: str) -> None:
    run = run_command(*command, "--who", who)

    assert (run.returncode, actions()) == (2, [])
    assert "is the name of somebody who sends requests" in on_one_line(run.stderr.replace("│", " "))


def test_entries_are_listed_page_by_page_the_newest_first(db: Db) -> None:
    ids = recorded(db, 5)

    first = listed("--limit", "3", "--who", "ann")
    second = listed("--limit", "3", "--who", "ann", "--before", str(first["next_before"]))

    assert [one["id"] for page in (first, second) for one in page["entries"]] == [*reversed(ids)]
    assert second["next_before"] is None


def test_entries_are_printed_with_what_they_tell(db: Db) -> None:
    run_command("api-keys", "create", "till", "--role", "staff", "--who", "ann\x1b[31m", "--why", "A new till (OPS-7)")

    run = run_command("audit", "list", "--subject", "key:till", "--since", "2020-01-01T00:00:00Z")

    assert run.stdout.splitlines()[0].split() == ["ID", "TIME", "ACTION", "ROWS", "WHO", "SUBJECT"]
    assert "api-key.create" in run.stdout and "key:till" in run.stdout and "\x1b" not in run.stdout
    assert "A new till (OPS-7) roles: staff" in on_one_line(run.stdout)


@pytest.mark.parametrize("kind", FORGED)
def test_an_entry_that_can_not_be_read_hides_no_other(db: Db, kind: str) -> None:
    recorded(db)
    forge(db, kind)
    sealed(db)

    printed, verified = run_command("audit", "list"), run_command("audit", "verify")

    assert (printed.returncode, verified.returncode) == (0, 0), printed.stderr + verified.stderr
    shown = [line.split()[0] for line in printed.stdout.splitlines() if "replay" in line or "item.stock" in line]
    assert shown == ["3", "2", "1"]
    assert ("can't be read in full" in on_one_line(printed.stdout)) == (kind not in ("depth", "number"))
    assert [one["unreadable"] is None for one in listed()["entries"]] == [True, kind in ("depth", "number"), True]


def test_no_entry_that_fits_is_no_error(db: Db) -> None:
    recorded(db)

    run = run_command("audit", "list", "--who", "nobody")

    assert (run.returncode, run.stdout) == (0, "No such entry is in the audit.\n")


def test_an_audit_as_it_was_is_ok_and_the_last_hash_is_shown(db: Db) -> None:
    sealed(db, 3)

    run = run_command("audit", "verify", "--hash", last_hash(db).upper())

    assert run.returncode == 0, run.stdout
    assert run.stdout == f"ok    the audit is as it was sealed: 1 seal of 3 entries\nlast hash: {last_hash(db)}\n"


def test_an_audit_that_was_changed_is_reported(db: Db) -> None:
    sealed(db, 3)
    tamper(db, "UPDATE audit_entries SET who = 'ben' WHERE id = 2")

    run = run_command("audit", "verify")

    assert run.returncode == 1
    assert run.stdout.splitlines()[0] == "FAIL  entry 2 was changed"


def test_a_hash_that_is_not_in_the_chain_is_reported(db: Db) -> None:
    sealed(db, 3)
    kept = last_hash(db)
    tamper(db, "DELETE FROM audit_seals", "DELETE FROM audit_entries")

    run = run_command("audit", "verify", "--hash", kept)
    printed = json.loads(run_command("audit", "verify", "--hash", kept, "--json").stdout)

    assert run.returncode == 1
    assert "the hash is not in the chain" in run.stdout
    assert (printed["ok"], printed["hash_found"], printed["hash"], printed["faults"]) == (False, False, None, [])


@pytest.mark.parametrize("command", [["prune"], ["process-outbox"]])
def test_without_workers_cron_seals_the_audit(db: Db, command: list[str]) -> None:
    recorded(db, 3)

    assert run_command(*command).returncode == 0

    assert "1 seal of" in run_command("audit", "verify").stdout
