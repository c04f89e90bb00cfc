"""The options that several commands have: which rows, who changes them and why, how fast, and JSON."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import reduce
from typing import Any
from uuid import UUID

import rich_click as click

from domain.access.principals import KEY, USER
from domain.runtime.identity import user_at_host

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]

FILTERS = "Which rows (filters are combined with AND)"

#: The first and the last number that a row can have: they are PostgreSQL's bigints.
ROW_IDS = 1, 2**63 - 1

POSITIVE = click.IntRange(min=1)


def instant(text: str) -> datetime:
    """Read an instant. An offset is required: the operator and the server may be in different time zones."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    raise click.BadParameter(f"{text!r} is not an RFC 3339 timestamp with UTC offset, such as 2030-01-31T12:00:00Z.")


def event_or_row(text: str) -> UUID | int:
    """Read the id of an event, or the number of a row."""
    with suppress(ValueError):
        return UUID(text)
    with suppress(ValueError):
        if ROW_IDS[0] <= int(text) <= ROW_IDS[1]:
            return int(text)
    raise click.BadParameter(f"{text!r} is neither the id of an event nor the number of a row.")


def filters(moment: str) -> Decorator:
    """Add the filters of a selection; the command gets them under the names of Selection's fields.

    `moment` says what happened to a row at the time that `--since` and `--before` bound.
    """
    return _all(
        _filter("--id", "row_id", metavar="ROW", type=click.IntRange(*ROW_IDS), help="The row with this number."),
        _by_event,
        _by_reservation,
        _filter("--type", "type", metavar="TYPE", help="Events of this type; * matches any characters."),
        _by_destination,
        _filter(
            "--since", "since", metavar="TIME", type=instant, help=f"{moment} at or after this RFC 3339 timestamp."
        ),
        _filter("--before", "before", metavar="TIME", type=instant, help=f"{moment} before this RFC 3339 timestamp."),
    )


def identities() -> Decorator:
    """Add the filters by which single events are named."""
    return _all(_by_event, _by_reservation, _by_destination)


def error_filters() -> Decorator:
    """Add the filters that only dead letters have."""
    return _all(
        _filter("--error", "error", metavar="TEXT", help="Rows whose last error contains this text."),
        _filter("--group", "group", metavar="GROUP", help="The group that bin/dead-letters list shows by this name."),
    )


def all_rows() -> Decorator:
    """Add the option that is given instead of a filter to select every row."""
    return _filter("--all", "everything", is_flag=True, help="All rows; required if there is no filter.")


def audited() -> Decorator:
    """Add who makes a change and why; the audit keeps both. Only a dry run needs no reason."""
    return _all(
        click.option(
            "--why",
            metavar="TEXT",
            callback=_require_why,
            help="Why you make this change. Required, and kept in the audit.",
        ),
        _who,
    )


def signed() -> Decorator:
    """Add who makes a change, and a reason for those who want to give one; the audit keeps both."""
    return _all(
        click.option("--why", metavar="TEXT", default=None, help="Why you make this change. Kept in the audit."),
        _who,
    )


def paced(rate: int | None) -> Decorator:
    """Add the dry run and the rate of a change of many rows."""
    return _all(
        dry_run("Count the rows and change nothing."),
        click.option(
            "--rate",
            metavar="N",
            type=POSITIVE,
            default=rate,
            help=f"Maximum rows per second (default {rate or 'unlimited'}).",
        ),
    )


def dry_run(meaning: str) -> Decorator:
    """Add the dry run. It is read before --why, which is not required in a dry run."""
    return click.option("--dry-run", is_flag=True, is_eager=True, help=meaning)


def limit(noun: str) -> Decorator:
    """Add the maximum number of rows that a run works on; without it there is none."""
    return click.option(
        "--limit",
        metavar="N",
        type=POSITIVE,
        default=None,
        help=f"Maximum number of {noun} (default unlimited).",
    )


def as_json(members: str) -> Decorator:
    """Add the option that prints an object instead of text. `members` describes what the object contains."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print one JSON object instead of text: {members}")


def _all(*decorators: Decorator) -> Decorator:
    """Return one decorator for many. The help lists their options in this order."""
    return lambda function: reduce(lambda decorated, decorate: decorate(decorated), reversed(decorators), function)


def _require_nobody_else(_: click.Context, __: click.Parameter, who: str) -> str:
    """Refuse the names of those who send requests: the audit is to show what was done with a token or an API key."""
    name = who.strip()
    if name.casefold().startswith((USER, KEY)):
        raise click.BadParameter(
            f"{name!r} is the name of somebody who sends requests over HTTP: {USER} and {KEY} are for those who show a"
            " token or an API key. Give your own name without it."
        )
    return name


_who = click.option(
    "--who",
    metavar="NAME",
    callback=_require_nobody_else,
    default=user_at_host,
    show_default="your user name @ this host, and who called sudo",
    help="Who makes this change. Kept in the audit.",
)


def _filter(*names: str, **attributes: Any) -> Decorator:
    return click.option(*names, panel=FILTERS, **attributes)


_by_event = _filter("--event", "event_id", metavar="ID", type=click.UUID, help="The event with this id.")
_by_reservation = _filter(
    "--reservation", "reservation_id", metavar="ID", type=click.UUID, help="Events of this reservation."
)
_by_destination = _filter("--destination", "destination", metavar="NAME", help="Rows for this destination.")


def _require_why(ctx: click.Context, _: click.Parameter, why: str | None) -> str | None:
    if why is None and not ctx.params.get("dry_run"):
        hint = " --dry-run needs none, as it changes nothing." if "dry_run" in ctx.params else ""
        raise click.UsageError(f"--why is required: say why you make this change; the audit keeps it.{hint}", ctx)
    return why
