"""`bin/migrate`: take the schema to the newest revision, or to another one."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from alembic import command as alembic
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, func, inspect, literal, select, table

from domain.runtime import database
from domain.runtime.settings import Settings
from worker.commands import command_line, options
from worker.commands.command_line import DONE, WRONG_USAGE, Command
from worker.commands.output import print_json, progress, rows
from worker.commands.runner import fail, reporting

#: The revision that this code needs, and the one before the first.
NEWEST, BASE = "head", "base"

#: Revisions that are so many steps before the present one.
STEPS_BACK = re.compile(r"-\d+")

#: Rows of a table are counted up to this number, to say what would be deleted.
MAX_COUNTED = 100_000


class Migrate(Command):
    """A command whose argument may begin with a dash: -1 is a revision and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        back = [] if "--" in args else [arg for arg in args if STEPS_BACK.fullmatch(arg)]
        others = [arg for arg in args if arg not in back]
        return super().parse_args(ctx, [*others, *(["--", *back] if back else [])])


@click.command(
    "bin/migrate",
    cls=Migrate,
    examples=["bin/migrate", "bin/migrate -1", "bin/migrate base --erase holdfast_test"],
    exit_codes={
        0: "the schema is at that revision",
        1: "there is no such revision, a lock was not free in time, or the database failed",
    },
)
@click.argument(
    "revision",
    default=NEWEST,
    metavar="[REVISION]",
    help="A revision, head for the newest (the default), -1 for the one before, or base for an empty database.",
)
@click.option(
    "--erase",
    metavar="DATABASE_NAME",
    help="Required if the migration deletes everything, as base does: the name of the connected database.",
)
@options.as_json("revision_before and revision; null means an empty database.")
def main(revision: str, erase: str | None, as_json: bool) -> int:
    """Take the schema to the newest revision, or to another one.

    Migrations that run at the same time wait for each other. A migration that does not get a lock within seconds
    gives up, so that it does not block the application; run it again.
    """
    with reporting("The migration that failed was undone; those before it stay."):
        engine = database.connect(Settings.load(), connections=1)
        try:
            before = _current(engine)
            _take(engine, revision, before, erase)
            after = _current(engine)
        except CommandError as error:
            fail(f"The schema can't be taken to {revision}: {error}. Nothing was changed.")
        finally:
            engine.dispose()
    if as_json:
        print_json(revision_before=before, revision=after)
    else:
        click.echo("The schema is up to date." if revision == NEWEST else f"The schema is at {after or BASE}.")
    return DONE


def _current(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _take(engine: Engine, revision: str, current: str | None, erase: str | None) -> None:
    """Take the schema from the current revision to another one, back or forth. Raises CommandError."""
    script = ScriptDirectory.from_config(_config())
    applied = [one.revision for one in script.iterate_revisions(current or BASE, BASE)]
    if revision in {BASE, f"-{len(applied)}"}:
        with engine.connect() as connection:
            _require_name(connection, revision, erase)
    elif erase is not None:
        raise click.UsageError("--erase is only for a migration that deletes everything, such as base.")
    with progress("Migrating"):
        migrate(revision, back=_is_back(script, revision, applied))


def _is_back(script: ScriptDirectory, revision: str, applied: Sequence[str]) -> bool:
    if revision == BASE or STEPS_BACK.fullmatch(revision):
        return True
    if revision == NEWEST or revision.startswith("+"):
        return False
    wanted = script.get_revision(revision)
    return wanted is not None and wanted.revision in applied[1:]


def _require_name(connection: Connection, revision: str, erase: str | None) -> None:
    """End the command and say what would be deleted, unless `erase` is the name of the connected database."""
    name = connection.execute(select(func.current_database())).scalar_one()
    if erase == name:
        return
    mistake = "" if erase is None else f"The connected database is {name!r} and not {erase!r}. "
    names = sorted({*inspect(connection).get_table_names()} - {"alembic_version"})
    tables = [f"  {each}: {_count(connection, each)}" for each in names]
    message = [
        f"Nothing was changed. {mistake}bin/migrate {revision} would delete everything in the database {name!r}:",
        *(tables or ["  It has no table."]),
        f"To delete all of that: bin/migrate {revision} --erase {shlex.quote(name)}",
    ]
    fail("\n".join(message), WRONG_USAGE)


def _count(connection: Connection, name: str) -> str:
    some = select(literal(1).label("one")).select_from(table(name)).limit(MAX_COUNTED).subquery()
    number = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return f"{rows(number)} or more" if number == MAX_COUNTED else rows(number)


def migrate(revision: str = NEWEST, *, back: bool = False) -> None:
    """Take the schema of the database that DATABASE_URL names to a revision, forth or back."""
    run = alembic.downgrade if back else alembic.upgrade
    run(_config(), revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


if __name__ == "__main__":
    command_line.run(main)
