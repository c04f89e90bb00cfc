"""`bin/migrate`: take the schema to the newest version, or to the one named."""

import argparse
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import OperationalError

#: The schema that this code needs.
NEWEST = "head"


def main() -> int:
    """Migrate, and return 0 for done, 1 for trouble."""
    parser = argparse.ArgumentParser(prog="bin/migrate", description=__doc__)
    parser.add_argument("revision", nargs="?", default=NEWEST, help="a revision; -1 goes one back; base empties all")
    revision = parser.parse_args().revision
    try:
        migrate(revision)
    except OperationalError as error:
        said = str(error.orig).strip()
        print(f"The schema is as it was: {said}\nNothing was changed; run it again.", file=sys.stderr)
        return 1
    except CommandError as error:
        print(f"There is no such revision to go to: {error}", file=sys.stderr)
        return 1
    print("The schema is up to date." if revision == NEWEST else f"The schema is at {revision}.")
    return 0


def migrate(revision: str = NEWEST) -> None:
    """Take the database of DATABASE_URL to a revision, forwards or back."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    goes_back = revision == "base" or revision.startswith("-")
    command.downgrade(config, revision) if goes_back else command.upgrade(config, revision)


if __name__ == "__main__":
    sys.exit(main())
