"""`bin/migrate`: take the schema to the newest revision, or to another one."""

import re
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich_click as click
from alembic import command as alembic
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from domain import invariants  # noqa: F401 - the tables of all nouns are in the metadata
from domain.runtime import database, poolers
from domain.runtime.schema import REPAIR, SCHEMA_VERSION, is_migrated, missing
from domain.runtime.settings import Settings
from migrations import deletions, locks
from worker.commands import command_line, options
from worker.commands.command_line import DONE, WRONG_USAGE, Command
from worker.commands.output import print_json, progress, rows
from worker.commands.runner import describe, fail, reporting

#: The revision that this code needs, and the one before the first.
NEWEST, BASE = "head", "base"

#: A revision that is so many steps before or after the present one.
STEPS = re.compile(r"[-+]\d+")

#: What an error means for the schema.
UNDONE = "The migration that failed was undone, except for indexes that it had completed; those before it stay."


class Migrate(Command):
    """A command whose argument may begin with a dash: -1 is a revision and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        back = [] if "--" in args else [arg for arg in args if arg.startswith("-") and STEPS.fullmatch(arg)]
        others = [arg for arg in args if arg not in back]
        return super().parse_args(ctx, [*others, *(["--", *back] if back else [])])


@click.command(
    "bin/migrate",
    cls=Migrate,
    examples=["bin/migrate", "bin/migrate base --erase holdfast_test"],
    exit_codes={
        0: "the schema is at that revision, or at a newer one that serves this release",
        1: "the schema can't be taken there or is incomplete, a lock was not free in time, or the database failed",
    },
)
@click.argument(
    "revision",
    default=NEWEST,
    metavar="[REVISION]",
    help="A revision, head for the newest (the default), base for an empty database, or -1 for the one before: that"
    " deletes the tables and columns that the present one added, with what is in them.",
)
@click.option(
    "--erase",
    metavar="DATABASE_NAME",
    help="Required to go back if that deletes anything: the name of the connected database. Without it, bin/migrate"
    " says what would be deleted, and changes nothing.",
)
@options.as_json("revision_before and revision; null means an empty database.")
def main(revision: str, erase: str | None, as_json: bool) -> int:
    """Take the schema to the newest revision, or to another one.

    Migrations that run at the same time wait for each other. A migration that does not get a lock within 2 seconds is
    undone and tried again a few times, so that it does not block the application. It may be stopped at any time, and
    continues when it is run again.
    """
    with reporting(UNDONE), _stopping_cleanly():
        before, after = take(revision, erase)
    if as_json:
        print_json(revision_before=before, revision=after)
    else:
        click.echo(_describe(before, after, revision))
    return DONE


def take(
    revision: str = NEWEST, erase: str | None = None, *, consequence: str = UNDONE
) -> tuple[str | None, str | None]:
    """Take the schema to a revision, and return the one before and the one after. If it can't be, end the command.

    `consequence` says what an error of the database means for the work of the command.
    """
    settings = Settings.load()
    url = "DATABASE_DIRECT_URL" if settings.database_direct_url else "DATABASE_URL"
    engine = database.connect(settings.direct(), connections=1)
    try:
        _require_direct(engine, url)
        if settings.database_direct_url:
            _require_same(engine, settings)
        before = _current(engine)
        _take(engine, revision, before, erase)
        after = _current(engine)
        if revision == NEWEST:
            _require_complete(engine, after)
        return before, after
    except CommandError as error:
        fail(f"The schema can't be taken to {revision}: {error}. Nothing was changed.")
    except OperationalError as error:
        if locks.waited_in_vain(error):
            fail(_describe_lock(error))
        fail(describe(error, consequence, url))
    finally:
        engine.dispose()


def _require_direct(engine: Engine, url: str) -> None:
    """End the command if a pooler is in the way: the lock that keeps other migrations out is one of a session."""
    if poolers.is_pooled(engine):
        fail(
            f"{url} leads to a pooler, such as PgBouncer, through which the schema can't be migrated safely."
            " Nothing was changed. Set DATABASE_DIRECT_URL to the address of PostgreSQL itself, and run it again."
        )


def _require_same(engine: Engine, settings: Settings) -> None:
    """End the command if DATABASE_URL leads to another database, which would stay as it is."""
    by_url = database.connect(settings, connections=1)
    try:
        if not poolers.lead_to_same_database(engine, by_url):
            fail(
                "DATABASE_DIRECT_URL leads to another database than DATABASE_URL. Nothing was changed. Set it to the"
                " address of the same database without a pooler, or remove it, and run it again."
            )
    finally:
        by_url.dispose()


def _current(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _take(engine: Engine, revision: str, current: str | None, erase: str | None) -> None:
    """Take the schema from the current revision to another one, back or forth. Raises CommandError."""
    script = ScriptDirectory.from_config(_config())
    known = [one.revision for one in script.walk_revisions()]
    if current is not None and current not in known:
        return _stay(engine, revision, current)
    applied = known[known.index(current) :] if current else []
    target = _absolute(revision, known, applied)
    back = _is_back(script, target, applied)
    if erase is not None and not back:
        raise click.UsageError("--erase is only for going back.")
    if back and current is not None:
        with engine.connect() as connection:
            _require_reversible(connection, script, current, target)
            _require_name(connection, revision, erase, deletions.dropped(_config(), current, target))
    with progress("Migrating"):
        migrate(target, back=back)
    return None


def _stay(engine: Engine, revision: str, current: str) -> None:
    """Accept a newer schema that serves this release, as after a rollback of the release. End the command otherwise."""
    with Session(engine) as session:
        serves = is_migrated(session)
    if revision != NEWEST or not serves:
        fail(
            f"The schema is at {current}, which a newer release has made"
            f"{'' if serves else f'; it does not serve this release, which needs {SCHEMA_VERSION}'}."
            " Nothing was changed. Use bin/migrate of that release."
        )


def _require_complete(engine: Engine, version: str | None) -> None:
    with Session(engine) as session:
        lacking = missing(session)
    if lacking:
        fail(f"The schema is at {version}, but lacks {', '.join(lacking)}, {REPAIR}.")


def _absolute(revision: str, known: Sequence[str], applied: Sequence[str]) -> str:
    """Return the revision that a number of steps leads to, so that a second attempt does not take them again.

    Revisions are the newest first. A number of steps that leads nowhere is returned as it is: Alembic refuses it.
    """
    if not STEPS.fullmatch(revision):
        return revision
    place = len(known) - len(applied) - int(revision)
    return [*known, BASE][place] if 0 <= place <= len(known) else revision


def _is_back(script: ScriptDirectory, revision: str, applied: Sequence[str]) -> bool:
    if revision == BASE or revision.startswith("-"):
        return True
    if revision == NEWEST or revision.startswith("+"):
        return False
    wanted = script.get_revision(revision)
    return wanted is not None and wanted.revision in applied[1:]


def _describe(before: str | None, after: str | None, wanted: str) -> str:
    if before != after:
        return f"The schema was taken from {before or BASE} to {after or BASE}."
    if wanted == NEWEST and after != SCHEMA_VERSION:
        return f"The schema is at {after}, which a newer release has made. It serves this release too."
    return f"The schema is at {after or BASE} already. Nothing was changed."


def _describe_lock(error: OperationalError) -> str:
    open_for_longest = "".join(getattr(error, "__notes__", ()))
    advice = f"Open for longest: {open_for_longest}. Wait for them or end them" if open_for_longest else "Wait a little"
    return f"A migration did not get a lock ({str(error).splitlines()[0]}). {UNDONE} {advice}, and run it again."


@contextmanager
def _stopping_cleanly() -> Iterator[None]:
    """End the command at SIGTERM as at Ctrl-C, and say what that means."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        yield
    except (KeyboardInterrupt, SQLAlchemyError):
        # Alembic still uses the connection of the statement that was interrupted, and that is another error.
        if not stopped:
            raise
        fail(f"Stopped. {UNDONE} Run it again for the rest.")


def _require_reversible(connection: Connection, script: ScriptDirectory, current: str, target: str) -> None:
    """Raise CommandError, before anything is changed, if a migration on the way back can't be undone now."""
    if target == BASE:
        return
    for migration in script.iterate_revisions(current, target):
        condition = getattr(migration.module, "irreversible_while", None)
        if condition and connection.execute(text(f"SELECT {condition}")).scalar_one():
            raise CommandError(migration.module.irreversible_because)


def _require_name(
    connection: Connection, revision: str, erase: str | None, dropped: Sequence[deletions.Dropped]
) -> None:
    """End the command and say what would be deleted, unless that is nothing or `erase` is the database's name."""
    name = connection.execute(select(func.current_database())).scalar_one()
    if erase == name:
        return
    counted = deletions.count(connection, dropped)
    if erase is None and not counted:
        return
    mistake = "" if erase is None else f"The connected database is {name!r} and not {erase!r}. "
    lines = [f"  {one}: {_describe_count(number)}" for one, number in sorted(counted.items(), key=str)]
    message = [
        f"Nothing was changed. {mistake}bin/migrate {revision} would delete this in the database {name!r}:",
        *(lines or ["  It has no rows there."]),
        f"To delete all of that: bin/migrate {revision} --erase {shlex.quote(name)}",
    ]
    fail("\n".join(message), WRONG_USAGE)


def _describe_count(number: int) -> str:
    return f"{rows(number)} or more" if number == deletions.MAX_COUNTED else rows(number)


def migrate(revision: str = NEWEST, *, back: bool = False) -> None:
    """Take the schema of the database of the settings to a revision, forth or back."""
    run = alembic.downgrade if back else alembic.upgrade
    run(_config(), revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


if __name__ == "__main__":
    command_line.run(main)
