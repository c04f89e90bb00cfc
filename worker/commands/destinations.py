"""`bin/destinations`: the status of each destination, how to pause, resume or probe one, and the routes in force."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import rich_click as click
from sqlalchemy.orm import Session

from domain.access.audit import AuditEntry
from domain.outbox.operations import destinations as operations
from domain.outbox.operations.destinations import Condition
from domain.outbox.operations.status import CountedStatus, read_statuses
from domain.runtime.logs import printable
from worker.commands import command_line, options, routes
from worker.commands.command_line import DONE, Group
from worker.commands.output import instant, print_json, print_wrapped, progress, rows, table
from worker.commands.runner import opened

HEAD = "NAME", "CONDITION", "PENDING", "WAITING", "DEAD", "OLDEST PENDING", "LANES LEASED"

MEMBERS = (
    "destinations, a list of name, condition (up, paused or down), routed (whether the present routes have it), reason,"
    " paused_at, down_since, next_probe_at, pending, waiting (pending rows that wait for another attempt), dead,"
    " lower_bounds (the counts that may be higher), oldest_pending_at, lanes_leased and holders (of the leased lanes)."
)


@click.group(
    "bin/destinations",
    cls=Group,
    examples=["bin/destinations list", 'bin/destinations pause shop --why "Stocktaking (OPS-7)"'],
)
def destinations() -> None:
    """Show, pause, resume or probe destinations, or change the routes."""


@destinations.command("list", examples=["bin/destinations list", "bin/destinations list --json"])
@options.as_json(MEMBERS)
def list_statuses(as_json: bool) -> int:
    """List the destinations of the routes, and those that only older rows name."""
    with opened("No status was read.") as (db, own):
        with progress("Reading the status of each destination"), db.begin() as session:
            statuses = read_statuses(session)
    if as_json:
        print_json(destinations=[_members(status, own.names) for status in statuses])
    else:
        _print_statuses(statuses, own.names)
    return DONE


def _members(status: CountedStatus, routed: Collection[str]) -> Mapping[str, object]:
    return {
        "name": status.name,
        "condition": status.condition,
        "routed": status.name in routed,
        "reason": status.reason,
        "paused_at": status.paused_at,
        "down_since": status.opened_at,
        "next_probe_at": status.next_probe_at,
        "pending": status.pending,
        "waiting": status.waiting,
        "dead": status.dead,
        "lower_bounds": status.lower_bounds,
        "oldest_pending_at": status.oldest_pending_at,
        "lanes_leased": len(status.holders),
        "holders": sorted({*status.holders}),
    }


def _print_statuses(statuses: Sequence[CountedStatus], routed: Collection[str]) -> None:
    head, *lines = table(HEAD, [_cells(status) for status in statuses])
    click.echo(head)
    for status, line in zip(statuses, lines, strict=True):
        click.echo(line)
        for remark in _remarks(status, routed):
            print_wrapped(remark, "  ")
    unregistered = sorted({*routed} - {status.name for status in statuses})
    if unregistered:
        print_wrapped(f"In the routes, but no worker has served them yet: {', '.join(unregistered)}.")


def _cells(status: CountedStatus) -> Sequence[str]:
    counts = {"pending": status.pending, "waiting": status.waiting, "dead": status.dead}
    numbers = [f"{number:,}" + "+" * (name in status.lower_bounds) for name, number in counts.items()]
    return status.name, status.condition, *numbers, instant(status.oldest_pending_at), f"{len(status.holders):,}"


def _remarks(status: CountedStatus, routed: Collection[str]) -> Sequence[str]:
    remarks = [_describe_condition(status)] if status.condition is not Condition.UP else []
    if status.name not in routed:
        remarks.append(_describe_unrouted(status))
    if status.dead:
        remarks.append(f"dead letters: bin/dead-letters list --destination {status.name}")
    if status.holders:
        # A holder's name ends in digits that differ from lane to lane.
        workers = Counter(printable(holder.rsplit(":", 1)[0]) for holder in status.holders)
        remarks.append("lanes leased by " + ", ".join(f"{worker} ({lanes})" for worker, lanes in workers.items()))
    return remarks


def _describe_condition(status: CountedStatus) -> str:
    reason = f": {printable(status.reason)}" if status.reason else ""
    if status.condition is Condition.PAUSED:
        since = f" since {instant(status.paused_at)}" if status.paused_at else ""
        return f"paused{since}{reason}\nbin/destinations resume {status.name} --why TEXT"
    return (
        f"down since {instant(status.opened_at)}, next probe at {instant(status.next_probe_at)}{reason}\n"
        f"bin/destinations probe {status.name} --why TEXT"
    )


def _describe_unrouted(status: CountedStatus) -> str:
    if not status.pending:
        return "not in the routes, and nothing is pending for it"
    number = "at least " * ("pending" in status.lower_bounds) + rows(status.pending)
    return (
        f"not in the routes: no worker delivers {number}. Put it back into the file that HOLDFAST_ROUTES names;"
        " bin/doctor says how to drop the rows instead."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What an operator does to a destination. `changed` and `unchanged` say whether there was something to change."""

    act: Callable[[Session, str, AuditEntry], bool]
    help: str
    why: str
    changed: str
    unchanged: str


ACTIONS: Mapping[str, Action] = {
    "pause": Action(
        act=operations.pause,
        help="Send nothing more to a destination. What is recorded for it stays pending, in order.",
        why="Stocktaking (OPS-7)",
        changed=(
            "{0} is paused: no new batch is sent to it, and what is recorded for it stays pending, in order. A batch in"
            " flight is still delivered.\nResume it: bin/destinations resume {0} --why TEXT"
        ),
        unchanged="{0} is paused already. Nothing was changed.",
    ),
    "resume": Action(
        act=operations.resume,
        help="Send to a paused destination again, in order for each reservation.",
        why="Stocktaking is over (OPS-7)",
        changed=(
            "{0} is resumed: workers send to it again within a second or two, in order for each reservation. If it is"
            " down as well, they wait for its next probe: bin/destinations list"
        ),
        unchanged="{0} is not paused. Nothing was changed.",
    ),
    "probe": Action(
        act=operations.probe,
        help="Try a destination that is down at once, with one row, instead of at its next probe.",
        why="The shop is back (OPS-7)",
        changed=(
            "{0} is probed at once, with one row. If that succeeds, all its rows are delivered; if not, its circuit"
            " breaker stays open.\nSee which: bin/destinations list"
        ),
        unchanged=(
            "{0} is not probed: it is paused (bin/destinations resume {0} --why TEXT), or not known to be down. Nothing"
            " was changed."
        ),
    ),
}


def _add(verb: str, action: Action) -> None:
    """Add a subcommand that changes the condition of a destination."""

    @destinations.command(verb, help=action.help, examples=[f'bin/destinations {verb} shop --why "{action.why}"'])
    @click.argument("name", metavar="NAME", help="The destination, as bin/destinations list shows it.")
    @options.audited()
    @options.as_json("name, action and changed (false if there was nothing to change).")
    def act(name: str, who: str, why: str, as_json: bool) -> int:
        with opened(f"{name} may be changed or not: bin/destinations list shows its condition.") as (db, _):
            # Made first, because it raises Invalid: a change that the audit can't record is not made.
            entry = AuditEntry(who=who, why=why)
            with db.begin() as session:
                changed = action.act(session, name, entry)
        if as_json:
            print_json(name=name, action=verb, changed=changed)
        else:
            print_wrapped((action.changed if changed else action.unchanged).format(name))
        return DONE


for _verb, _action in ACTIONS.items():
    _add(_verb, _action)

destinations.add_command(routes.show)
destinations.add_command(routes.use)


if __name__ == "__main__":
    command_line.run(destinations)
