"""`bin/forget-guest`: destroy the personal data of a guest. The reservation, its history and its events stay whole."""

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import rich_click as click
from sqlalchemy.orm import Session, sessionmaker

from domain import reservations
from domain.access import audit
from domain.access.audit import Operation
from domain.privacy import KeyService, forget, guests, key_check
from domain.reservations import of_guests
from domain.reservations.of_guests import Conditions
from domain.runtime.identity import HIGHEST_ID
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import print_json, print_wrapped, progress, rows
from worker.commands.runner import fail, opened, personal_data_keys, stoppable

#: The guests of one transaction.
BATCH = 500

MEMBERS = (
    "forgotten (guests), matching (those that were found), dry_run, complete (whether all that match are forgotten, as"
    " far as can be known) and unsearched (the guests of each key that is not there, by its id: nobody can be found"
    " among them by --email or --telephone)."
)

BACKUPS = (
    "Backups of the database still have what was destroyed, encrypted by keys that the keys of PII_KEYS open. To reach"
    " them as well: put a new key first in PII_KEYS, run bin/rotate-keys, then take the old keys out and destroy them."
    " docs/personal-data.md describes it."
)

UNKNOWN = "No such guest is known: there never was one, or they are forgotten already. Nothing was changed."

NOBODY = "Nobody was found among the guests whose keys are there, and nothing was changed. But "

WHOM = "Whom to forget (exactly one)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How many guests were found and, unless it was a dry run, forgotten, and whether that were all.

    `unsearched` has the guests among whom nobody can be found, by the ids of their keys.
    """

    count: int
    has_ended: bool
    unsearched: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.has_ended and not self.unsearched


@click.command(
    "bin/forget-guest",
    cls=Command,
    examples=[
        "bin/forget-guest --reservation 01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21 --dry-run",
        "bin/forget-guest --email < address.txt",
        "bin/forget-guest --guest-id guest-42",
    ],
    exit_codes={
        0: "done, or nobody was left to forget of a reservation that exists",
        1: "trouble, stopped, no such guest was found, or a key of guests is not there; the message says what happened",
    },
)
@click.option(
    "--reservation", "reservation_id", type=click.UUID, metavar="ID", panel=WHOM, help="The guest of this reservation."
)
@click.option("--email", "by_email", is_flag=True, panel=WHOM, help="The guest with an e-mail address: see below.")
@click.option("--telephone", "by_telephone", is_flag=True, panel=WHOM, help="The guest with a telephone number.")
@click.option("--guest-id", metavar="ID", panel=WHOM, help="The guest of all reservations of this account.")
@options.dry_run("Count the guests and change nothing.")
@options.signed()
@options.as_json(MEMBERS)
def forget_guest(
    reservation_id: UUID | None,
    by_email: bool,
    by_telephone: bool,
    guest_id: str | None,
    dry_run: bool,
    who: str,
    why: str | None,
    as_json: bool,
) -> int:
    """Destroy the personal data of a guest, of one reservation or of several.

    The key, the encrypted fields and the hashes are destroyed. The reservations, their histories and their events stay
    whole. An e-mail address or telephone number is asked for, or read from standard input, and can't be an argument:
    every user of this machine could see it there, and the history of the shell would keep it. They are looked for by
    the keys of PII_KEYS; --reservation and --guest-id need no key.
    """
    if sum([reservation_id is not None, by_email, by_telephone, guest_id is not None]) != 1:
        raise click.UsageError("Say whom to forget: give one of --reservation, --email, --telephone and --guest-id.")
    with opened("Whoever was not forgotten yet is forgotten by the next run.") as (db, _):
        keys = personal_data_keys() if by_email or by_telephone else None
        wanted = _wanted(keys, reservation_id, by_email, guest_id)
        if reservation_id is not None:
            with db.begin() as session:
                reservations.get(session, reservation_id)
        subject = _subject(reservation_id, guest_id)
        operation = None if dry_run else Operation(action="guest.forget", who=who, why=why, subject=subject)
        run = _run(db, wanted, wanted if keys else (), operation)
        if keys is not None:
            run = replace(run, unsearched=_unsearched(db, keys))
            _record_search(db, run, who, why, dry_run=dry_run)
    return _report(run, may_be_nobody=reservation_id is not None, dry_run=dry_run, as_json=as_json)


def _wanted(keys: KeyService | None, reservation_id: UUID | None, by_email: bool, guest_id: str | None) -> Conditions:
    """Return the conditions that a guest is to be forgotten."""
    if reservation_id is not None:
        return of_guests.of_reservation(reservation_id)
    if guest_id is not None:
        return of_guests.of_account(guest_id)
    assert keys is not None
    if by_email:
        return guests.with_email(keys, _read("E-mail address"))
    return guests.with_telephone(keys, _read("Telephone number"))


def _read(name: str) -> str:
    """Ask for what is not to be an argument, or read it from standard input. It is not shown on a terminal."""
    given: str = click.prompt(name, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not given.strip():
        raise click.UsageError(f"{name}: it is empty. Type it, or write it to standard input in one line.")
    return given.strip()


def _subject(reservation_id: UUID | None, guest_id: str | None) -> str | None:
    """Return the subject of the audit entries. An e-mail address or a telephone number is none."""
    if reservation_id is not None:
        return f"reservation:{reservation_id}"
    return None if guest_id is None else f"guest:{guest_id}"


def _run(db: sessionmaker[Session], wanted: Conditions, still: Conditions, operation: Operation | None) -> Run:
    """Forget all guests who are wanted or, if that is not to be recorded, count them. For `still`, see `forget`."""
    stopping, count, before = threading.Event(), 0, HIGHEST_ID
    with stoppable(stopping), progress("Forgetting guests" if operation else "Looking for guests") as advance:
        while not stopping.is_set():
            with db.begin() as session:
                found = of_guests.find(session, wanted, before=before, limit=BATCH)
                count += _forget(session, found, still, operation) if operation else len(found)
            if len(found) < BATCH:
                return Run(count=count, has_ended=True)
            before = found[-1]
            advance(text=f"{count:,} guests")
    return Run(count=count, has_ended=False)


def _forget(session: Session, found: Sequence[UUID], still: Conditions, operation: Operation) -> int:
    forgotten = forget(session, found, still)
    if forgotten:
        operation.record(session, forgotten)
    return forgotten


def _unsearched(db: sessionmaker[Session], keys: KeyService) -> Mapping[str, int]:
    """Return how many guests have each key that is missing, or is another one than it was."""
    with db.begin() as session:
        found = key_check.samples(session)
    missing = key_check.unusable(keys, found)
    if not missing:
        return {}
    with db.begin() as session:
        counted = guests.count_by_key(session)
    return {key_id: counted.get(key_id, 0) for key_id in missing}


def _record_search(db: sessionmaker[Session], run: Run, who: str, why: str | None, *, dry_run: bool) -> None:
    """Record a run that has forgotten nobody: its answer, whether a person is a guest, is personal data as well."""
    if dry_run or not run.count:
        with db.begin() as session:
            audit.record(session, "guest.search", who=who, why=why, rows=run.count)


def _report(run: Run, *, may_be_nobody: bool, dry_run: bool, as_json: bool) -> int:
    """Print what was done, and return the exit code."""
    if as_json:
        forgotten = 0 if dry_run else run.count
        print_json(
            forgotten=forgotten,
            matching=run.count,
            dry_run=dry_run,
            complete=run.is_complete,
            unsearched=run.unsearched,
        )
    if not run.count and not may_be_nobody:
        fail(_describe_unsearched(run.unsearched, NOBODY) if run.unsearched else UNKNOWN)
    if not as_json:
        print_wrapped(_summary(run, dry_run=dry_run))
    return DONE if run.is_complete else TROUBLE


def _summary(run: Run, *, dry_run: bool) -> str:
    if not run.count and not dry_run:
        return "This reservation has no guest who is not forgotten already. Nothing was changed."
    unsearched = [_describe_unsearched(run.unsearched, "Not all guests could be looked at: ")] if run.unsearched else []
    if dry_run:
        would = f"{rows(run.count, 'guest')} would be forgotten. Dry run: nothing was changed."
        return "\n".join([would, *unsearched])
    done = f"{rows(run.count, 'guest')} forgotten. The reservations, their histories and their events are as they were."
    if not run.has_ended:
        done = f"Stopped: {done} Run it again for the rest."
    return "\n".join([done, *unsearched, BACKUPS])


def _describe_unsearched(unsearched: Mapping[str, int], introduction: str) -> str:
    """Return which keys are not there, what that means, and what to do."""
    have = "; ".join(
        f"{rows(count, 'guest')} {'has' if count == 1 else 'have'} the key {key_id}, which is not in PII_KEYS, or is"
        " another one there than it was"
        for key_id, count in unsearched.items()
    )
    return (
        f"{introduction}{have}. Whether the person is among them can't be known. Put these keys back behind the first"
        " one in PII_KEYS, and run this again. --reservation and --guest-id need no key."
    )


if __name__ == "__main__":
    command_line.run(forget_guest)
