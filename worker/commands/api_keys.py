"""`bin/api-keys`: the API keys of machines. A key is shown once, when it is made."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import rich_click as click

from domain.access import Role, api_keys
from domain.access.api_keys import LONGEST, ApiKey
from domain.runtime.database import now
from worker.commands import command_line, options
from worker.commands.command_line import DONE, Group
from worker.commands.output import instant, print_json, rows, table
from worker.commands.runner import fail, opened

HEAD = "NAME", "ID", "ROLES", "FOR", "STATE", "EXPIRES", "LAST USED"

MEMBERS = (
    "keys, a list of id, name, roles, venues and providers (those that it acts for), state (valid, expired or"
    " revoked), created_at, expires_at, revoked_at and last_used_on."
)

#: A key that another one replaces serves on for this time, in hours.
OVERLAP_HOURS = 24


NO_GUEST = (
    "With the role guest alone it sees items and what is free of them, and no more: a key is no guest, so it can"
    " neither reserve nor see a reservation. Guests reserve with tokens, and machines for them with the role staff or"
    " business."
)


@click.group(
    "bin/api-keys",
    cls=Group,
    examples=["bin/api-keys create till --role staff --days 365", "bin/api-keys list", "bin/api-keys revoke till"],
)
def keys() -> None:
    """Create, list, replace or revoke the API keys of machines."""


@keys.command("create", examples=["bin/api-keys create front-desk --role business --venue PARIS --days 365"])
@click.argument("name", help="The name of the key, by which histories and audits call whoever uses it.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="What it may do (see bin/rights). Repeat it for several roles.",
)
@click.option("--venue", "venues", multiple=True, metavar="ID", help="A venue that it acts for, with role business.")
@click.option(
    "--provider", "providers", multiple=True, metavar="ID", help="A provider that it acts for, with role provider."
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=LONGEST.days),
    default=None,
    help="Let it expire after so many days (default never).",
)
@options.signed()
@options.as_json("name and key.")
def create(
    name: str,
    roles: Sequence[Role],
    venues: Sequence[str],
    providers: Sequence[str],
    days: int | None,
    who: str,
    why: str | None,
    as_json: bool,
) -> int:
    """Create a key, and show it, this once."""
    lasting = timedelta(days=days) if days else None
    with opened("No key was created.") as (db, _), db.begin() as session:
        key = api_keys.create(
            session,
            name,
            [Role(role) for role in roles],
            venues=venues,
            providers=providers,
            lasting=lasting,
            who=who,
            why=why,
        )
        _show(name, key, as_json=as_json)
    _explain(as_json=as_json)
    if set(roles) == {Role.GUEST}:
        click.echo(NO_GUEST, err=True)
    return DONE


@keys.command("rotate", examples=["bin/api-keys rotate till --overlap-hours 1"])
@click.argument("name", help="The name of the key.")
@click.option(
    "--overlap-hours",
    type=click.IntRange(min=0, max=LONGEST.days * 24),
    default=OVERLAP_HOURS,
    show_default=True,
    help="The present key serves on for so long.",
)
@options.signed()
@options.as_json("name and key.")
def rotate(name: str, overlap_hours: int, who: str, why: str | None, as_json: bool) -> int:
    """Create a key of the same name and rights in place of the present one, and show it, this once."""
    with opened("No key was changed.") as (db, _), db.begin() as session:
        key = api_keys.rotate(session, name, timedelta(hours=overlap_hours), who=who, why=why)
        _show(name, key, as_json=as_json)
    _explain(as_json=as_json)
    return DONE


@keys.command("revoke", examples=["bin/api-keys revoke till"])
@click.argument("name", help="The name of the key.")
@options.signed()
@options.as_json("revoked, the number of keys.")
def revoke(name: str, who: str, why: str | None, as_json: bool) -> int:
    """Revoke the keys of a name. Every process refuses them within seconds."""
    with opened("No key was revoked.") as (db, _), db.begin() as session:
        revoked = api_keys.revoke(session, name, who=who, why=why)
    if as_json:
        print_json(revoked=revoked)
    else:
        click.echo(f"{rows(revoked, 'key')} revoked. Every process refuses what is sent with them within 5 s.")
    return DONE


@keys.command("list", examples=["bin/api-keys list", "bin/api-keys list --json"])
@options.as_json(MEMBERS)
def list_keys(as_json: bool) -> int:
    """List all keys, those that are no longer valid included."""
    with opened("No key was read.") as (db, _), db.begin() as session:
        found, moment = api_keys.find(session), now(session)
    if as_json:
        print_json(keys=[_members(one, moment) for one in found])
    elif found:
        for line in table(HEAD, [_cells(one, moment) for one in found]):
            click.echo(line)
    else:
        click.echo("No API keys. bin/api-keys create makes one.")
    return DONE


def _show(name: str, key: str, *, as_json: bool) -> None:
    """Show a key while its transaction is open: a key that nobody could see is not made, and replaces none."""
    try:
        # A standard output that is closed is /dev/null as well by now: bin/python puts it in its place.
        if os.fstat(sys.stdout.fileno()).st_rdev == os.stat(os.devnull).st_rdev:
            raise OSError("the standard output is closed, or /dev/null")
        if as_json:
            print_json(name=name, key=key)
        else:
            click.echo(key)
    except OSError as error:
        # What could not be written is not to be tried again, with an error of its own, when the process ends.
        sys.stdout = None
        fail(
            f"The key could not be shown: {error.strerror or error}. So it was not made, and nothing was changed. Send"
            " the output to where it can be read, and run it again."
        )


def _explain(*, as_json: bool) -> None:
    if not as_json:
        click.echo(
            "This is the key. It is shown this once: keep it where secrets are kept. Requests send it as"
            " `Authorization: Bearer …`.",
            err=True,
        )


def _state(one: ApiKey, moment: datetime) -> str:
    if one.revoked_at:
        return "revoked"
    return "expired" if one.expires_at and one.expires_at <= moment else "valid"


def _cells(one: ApiKey, moment: datetime) -> Sequence[str]:
    return (
        one.name,
        one.key_id,
        ", ".join(sorted(one.roles)),
        ", ".join(sorted(one.venues | one.providers)) or "-",
        _state(one, moment),
        instant(one.expires_at) if one.expires_at else "never",
        str(one.last_used_on or "never"),
    )


def _members(one: ApiKey, moment: datetime) -> Mapping[str, object]:
    return {
        "id": one.key_id,
        "name": one.name,
        "roles": sorted(one.roles),
        "venues": sorted(one.venues),
        "providers": sorted(one.providers),
        "state": _state(one, moment),
        "created_at": one.created_at,
        "expires_at": one.expires_at,
        "revoked_at": one.revoked_at,
        "last_used_on": one.last_used_on and str(one.last_used_on),
    }


if __name__ == "__main__":
    command_line.run(keys)
