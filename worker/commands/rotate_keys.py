"""`bin/rotate-keys`: wrap the data keys of guests by the present key. It may run beside all else, and beside itself."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import rich_click as click
from sqlalchemy.orm import Session, sessionmaker

from domain.access.audit import Operation
from domain.privacy import KeyService, Rotated, rotate
from domain.privacy.guests import count_by_key
from domain.privacy.rotation import former
from domain.runtime.identity import LOWEST_ID
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Command
from worker.commands.output import print_json, print_wrapped, progress, rows
from worker.commands.runner import opened, personal_data_keys, stoppable

MEMBERS = (
    "key (the id of the key that encrypts), rotated (guests), left (the guests of each other key, by its id),"
    " unreadable (the first ids of rows whose key is another one than it was) and complete (whether all have the key)."
)

#: So many rows that can't be read are named.
NAMED = 5


@dataclass
class Run:
    """What a run has done so far."""

    rotated: int = 0
    #: Those that can't be read, by the key that has wrapped them.
    unreadable: dict[str, list[UUID]] = field(default_factory=dict)


@click.command(
    "bin/rotate-keys",
    cls=Command,
    examples=["bin/rotate-keys", "bin/rotate-keys --json"],
    exit_codes={
        0: "every guest has the first key; the other keys can be taken out of PII_KEYS",
        1: "trouble, stopped, or there are guests without that key; the message says what to do",
    },
)
@options.signed()
@options.as_json(MEMBERS)
def rotate_keys(who: str, why: str | None, as_json: bool) -> int:
    """Wrap the data keys of all guests by the first key of PII_KEYS.

    Put a new key before the others in PII_KEYS, restart all API processes with it, and run this. Guests are read and
    changed meanwhile. It can be stopped, killed and repeated, and two runs at once do no harm. Afterwards take the old
    keys out of PII_KEYS and destroy them: only then are guests whom you have forgotten gone from backups too.
    """
    stopping, run = threading.Event(), Run()
    with opened("The batch that failed was undone. Run it again for the rest.") as (db, _):
        keys = personal_data_keys()
        operation = Operation(action="keys.rotate", who=who, why=why, subject=f"key:{keys.key_id}")
        counted = _count(db)
        total = sum(counted[key_id] for key_id in former(keys, counted))
        with stoppable(stopping), progress("Rotating keys", total) as advance:
            _run(partial(rotate, db, keys, record=operation.record), partial(_former, db, keys), run, stopping, advance)
        left = {key_id: count for key_id, count in _count(db).items() if key_id != keys.key_id}
    if as_json:
        unreadable = [str(one) for several in run.unreadable.values() for one in several][:NAMED]
        print_json(key=keys.key_id, rotated=run.rotated, left=left, unreadable=unreadable, complete=not left)
    else:
        print_wrapped(_summary(keys, run, left))
    return TROUBLE if left else DONE


def _count(db: sessionmaker[Session]) -> dict[str, int]:
    with db.begin() as session:
        return dict(count_by_key(session))


def _former(db: sessionmaker[Session], keys: KeyService) -> Sequence[str]:
    return former(keys, _count(db))


def _run(
    rotate_batch: Callable[..., Rotated],
    former_keys: Callable[[], Sequence[str]],
    run: Run,
    stopping: threading.Event,
    advance: Callable[[int], None],
) -> None:
    """Rotate all guests of the former keys. What is locked is passed over at first, and waited for at last."""
    for waits in (False, True):
        run.unreadable = {}
        for key_id in former_keys():
            after: UUID | None = LOWEST_ID
            while after is not None and not stopping.is_set():
                batch = rotate_batch(key_id, after=after, waits=waits)
                run.rotated, after = run.rotated + batch.rotated, batch.last
                run.unreadable.setdefault(key_id, []).extend(batch.unreadable)
                advance(run.rotated)


def _summary(keys: KeyService, run: Run, left: dict[str, int]) -> str:
    done = f"{rows(run.rotated, 'guest')} rotated to the key {keys.key_id}."
    if not left and keys.key_ids == {keys.key_id}:
        return f"{done} All guests have it, and it is the only key."
    if not left:
        return (
            f"{done} All guests have it now. Take the other keys out of PII_KEYS of all processes, and destroy them:"
            " until then, backups of the database can be read by them."
        )
    others = [_describe_left(keys, key_id, count, run.unreadable.get(key_id, ())) for key_id, count in left.items()]
    return "\n".join([done, *others])


def _describe_left(keys: KeyService, key_id: str, count: int, unreadable: Sequence[UUID]) -> str:
    are = f"{rows(count, 'guest')} {'has' if count == 1 else 'have'} the key {key_id}"
    if key_id not in keys.key_ids:
        return f"{are}, which is not in PII_KEYS. Put it back there behind the first one, and run this again."
    if unreadable:
        named = ", ".join(map(str, unreadable[:NAMED]))
        return (
            f"{are}, but some can't be read by it: it is another one than it was, or these rows were damaged: {named}."
        )
    return f"{are} still: run this again. If there are ever new ones, an API process runs with other PII_KEYS."


if __name__ == "__main__":
    command_line.run(rotate_keys)
