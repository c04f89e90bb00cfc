"""The options that keys have in common, and what they mean."""

import argparse
import getpass
import socket
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from uuid import UUID

from domain.outbox.operations.audit import AuditEntry
from domain.outbox.operations.selection import Among, Selection

#: What the options of a selection are stored under: the fields that they give.
FIELDS = tuple(field.name for field in fields(Selection) if field.name != "among")


def add_selection(parser: argparse.ArgumentParser, moment: str) -> None:
    """Add what selects rows by what they are and when they came to it."""
    which = parser.add_argument_group("which rows (all that is given must fit)")
    which.add_argument("--id", dest="row_id", metavar="N", type=_row_id, help="the row of this number")
    which.add_argument("--event", dest="event_id", metavar="ID", type=UUID, help="the event of this id")
    which.add_argument("--reservation", dest="reservation_id", metavar="ID", type=UUID, help="of this reservation")
    which.add_argument("--type", metavar="TYPE", help="of this event type; * stands for any run of characters")
    which.add_argument("--destination", metavar="NAME", help="to this destination")
    which.add_argument("--since", metavar="TIME", type=_instant, help=f"{moment} at this instant or later")
    which.add_argument("--until", metavar="TIME", type=_instant, help=f"{moment} before this instant")
    which.add_argument("--all", dest="everything", action="store_true", help="all there are")


def add_error(parser: argparse.ArgumentParser) -> None:
    """Add what selects dead letters by what they died of."""
    parser.add_argument("--error", metavar="TEXT", help="with this text in their last error")
    parser.add_argument("--group", metavar="GROUP", help="of the group that `list` shows under this name")


def add_audit_entry(parser: argparse.ArgumentParser, *, counts: bool = True) -> None:
    """Add who does it and why, and where there is something to count, how not to do it."""
    parser.add_argument("--why", metavar="TEXT", help="why you do it: required, and kept with what you did")
    parser.add_argument("--who", metavar="NAME", default=_whoever(), help="who does it (%(default)s)")
    if counts:
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")
        parser.add_argument("--rate", metavar="N", type=positive, help="so many rows a second at the most")


def selection(asked: argparse.Namespace, among: Among) -> Selection:
    """Return what the options select. Raises Invalid."""
    given = {field: getattr(asked, field, None) for field in FIELDS}
    return Selection(among=among, **{name: value for name, value in given.items() if value is not None})


def entry(asked: argparse.Namespace) -> AuditEntry:
    """Return who does it and why. Raises Invalid."""
    return AuditEntry(who=asked.who, why=asked.why or "")


def insist_on_why(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """End the process with 2 if a change is asked for without a reason."""
    if getattr(asked, "why", "") is None and not getattr(asked, "dry_run", False):
        parser.error("--why is required: say why you do this; it is kept with what you did")


def positive(text: str) -> int:
    """Read a number of 1 or more."""
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError("it must be a number of 1 or more")


def _row_id(text: str) -> int:
    number = positive(text)
    if number >= 2**63:
        raise argparse.ArgumentTypeError("no row has so high a number")
    return number


def _instant(text: str) -> datetime:
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    raise argparse.ArgumentTypeError("it must be an instant with its offset, such as 2030-01-31T12:00:00Z")


def _whoever() -> str:
    with suppress(KeyError, OSError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return f"unknown@{socket.gethostname()}"
