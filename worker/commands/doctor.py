"""`bin/doctor`: what must hold, checked on a live database. Exit 1 if something does not."""

import sys

from sqlalchemy.exc import SQLAlchemyError

from domain import invariants
from domain.invariants import Finding
from domain.outbox import routes_file
from domain.runtime import database
from domain.runtime.settings import Settings
from worker.commands.runner import failed


def main() -> int:
    """Print a line for each invariant, and return 1 if one is broken."""
    settings = Settings.load()
    routed = [route.name for route in routes_file.load(settings).destinations]
    engine = database.connect(settings, connections=1)
    try:
        with database.sessions(engine).begin() as session:
            findings = invariants.examine(session, routed=routed)
    except SQLAlchemyError as error:
        return failed(error, "Nothing was examined.")
    for finding in findings:
        print(_told(finding))
    return 1 if any(finding.broken for finding in findings) else 0


def _told(finding: Finding) -> str:
    if not finding.broken:
        return f"ok    {finding.says}"
    more = finding.broken - len(finding.named)
    named = ", ".join(finding.named) + (f" and {more} more" if more else "")
    return f"FAIL  {finding.says}: not {named}" + (f". {finding.advice}" if finding.advice else "")


if __name__ == "__main__":
    sys.exit(main())
