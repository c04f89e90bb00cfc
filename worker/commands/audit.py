"""`bin/audit`: ask who did what, and verify that what was recorded is as it was."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import rich_click as click

from domain.access import audit
from domain.access.audit import Filter, RecordedEntry, Verification
from domain.runtime.logs import printable
from worker.commands import command_line, options
from worker.commands.command_line import DONE, TROUBLE, Group
from worker.commands.output import instant, print_json, print_wrapped, progress, rows, table
from worker.commands.runner import opened

#: Entries that are shown unless another number is given.
SHOWN = 100

HEAD = "ID", "TIME", "ACTION", "ROWS", "WHO", "SUBJECT"

LIST_MEMBERS = (
    "entries, a list of id, happened_at, who, action, subject, why, selection, rows, operation_id (the first entry of"
    " the operation of which this is a further batch: add up the rows) and unreadable (what can't be shown of an entry"
    " that somebody has written past Holdfast, or null); and next_before, for --before, or null."
)

VERIFY_MEMBERS = (
    "ok, seals, entries (that are sealed), hash (the last one), hash_found (whether the given one is in the chain, or"
    " null), fault_count and faults, the first few of them."
)


@click.group(
    "bin/audit",
    cls=Group,
    examples=["bin/audit list --action api-key.create --since 2030-01-31T12:00:00Z", "bin/audit verify"],
)
def commands() -> None:
    """Show who did what, and verify that nothing of it was changed."""


@commands.command("list", examples=["bin/audit list", "bin/audit list --who ann@ops --subject item:17 --json"])
@click.option("--who", metavar="NAME", default=None, help="What this person or machine did.")
@click.option("--action", metavar="ACTION", default=None, help="This action, such as replay or api-key.create.")
@click.option("--subject", metavar="ID", default=None, help="What was done to this, such as item:17 or key:till.")
@click.option(
    "--since", metavar="TIME", type=options.instant, default=None, help="At or after this RFC 3339 timestamp."
)
@click.option("--before", metavar="ID", type=click.IntRange(*options.ROW_IDS), default=None, help="Below this id.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 10_000), default=SHOWN, show_default=True, help="At most so many."
)
@options.as_json(LIST_MEMBERS)
def list_entries(
    who: str | None,
    action: str | None,
    subject: str | None,
    since: datetime | None,
    before: int | None,
    limit: int,
    as_json: bool,
) -> int:
    """List entries of the audit, the newest first."""
    wanted = Filter(who=who, action=action, subject=subject, since=since)
    with opened("Nothing was read.") as (db, _), db.begin() as session:
        found = audit.find(session, wanted, limit=limit, before=before)
    following = found[-1].id if len(found) == limit else None
    if as_json:
        print_json(entries=[_members(one) for one in found], next_before=following)
    elif found:
        _print(found, following)
    else:
        click.echo("No such entry is in the audit.")
    return DONE


def _members(one: RecordedEntry) -> Mapping[str, object]:
    return {
        "id": one.id,
        "happened_at": one.happened_at,
        "who": one.who,
        "action": one.action,
        "subject": one.subject,
        "why": one.why or None,
        "selection": dict(one.selection),
        "rows": one.rows,
        "operation_id": one.operation_id,
        "unreadable": one.unreadable,
    }


def _print(found: Sequence[RecordedEntry], following: int | None) -> None:
    head, *lines = table(HEAD, [_cells(one) for one in found])
    click.echo(head)
    for one, line in zip(found, lines, strict=True):
        click.echo(line)
        for remark in _remarks(one):
            print_wrapped(remark, "  ")
    if following is not None:
        click.echo(f"For earlier ones: --before {following}")


def _cells(one: RecordedEntry) -> Sequence[str]:
    subject = printable(one.subject) if one.subject else "-"
    return str(one.id), instant(one.happened_at), printable(one.action), f"{one.rows:,}", printable(one.who), subject


def _remarks(one: RecordedEntry) -> Sequence[str]:
    of = f"a further batch of {one.operation_id}" if one.operation_id else ""
    selection = ", ".join(f"{name}: {value}" for name, value in one.selection.items())
    return [printable(remark) for remark in (one.unreadable, one.why, selection, of) if remark]


@commands.command(
    "verify",
    examples=["bin/audit verify", "bin/audit verify --hash 5f3a…"],
    exit_codes={
        0: "every sealed entry and every seal is as it was, and the hash is one of theirs",
        1: "something was changed or deleted, the hash is not in the chain, or the database could not be read",
    },
)
@click.option(
    "--hash", "hash_", metavar="HASH", default=None, help="A hash that was shown earlier, and was kept elsewhere."
)
@options.as_json(VERIFY_MEMBERS)
def verify(hash_: str | None, as_json: bool) -> int:
    """Verify each seal of the audit, and each entry that is sealed.

    Whoever owns the database could make the whole chain anew. Therefore keep the last hash in another place, and give
    it with --hash: it is in the chain unless entries up to it were changed, or the end of the chain was cut off.
    """
    sought = hash_.strip().lower() if hash_ is not None else None
    with opened("The audit was not verified.") as (db, _), progress("Verifying the audit"), db.begin() as session:
        found = audit.verify(session, sought)
    is_ok = not found.fault_count and (sought is None or found.is_met)
    if as_json:
        _print_json(found, sought, is_ok=is_ok)
    else:
        for line in _describe(found, sought):
            print_wrapped(line)
    return DONE if is_ok else TROUBLE


def _print_json(found: Verification, sought: str | None, *, is_ok: bool) -> None:
    print_json(
        ok=is_ok,
        seals=found.seals,
        entries=found.entries,
        hash=found.hash,
        hash_found=None if sought is None else found.is_met,
        fault_count=found.fault_count,
        faults=list(found.faults),
    )


def _describe(found: Verification, sought: str | None) -> Sequence[str]:
    lines = [f"FAIL  {fault}" for fault in found.faults]
    if found.fault_count > len(found.faults):
        lines.append(f"FAIL  and {rows(found.fault_count - len(found.faults), 'further fault')}")
    if sought is not None and not found.is_met:
        lines.append(
            "FAIL  the hash is not in the chain: entries were changed and the chain was made anew, its end was cut off,"
            " or this is the hash of another database"
        )
    if not lines:
        lines.append(f"ok    the audit is as it was sealed: {rows(found.seals, 'seal')} of {found.entries:,} entries")
    return [*lines, f"last hash: {found.hash}" if found.hash else "Nothing was sealed yet."]


if __name__ == "__main__":
    command_line.run(commands)
