"""`bin/why`: what prevents the delivery of an event, the reserving of an item, or the change of a reservation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import rich_click as click

from domain.outbox.operations import explain
from domain.outbox.operations.explain import (
    BlockedByEarlierEvent,
    BreakerOpen,
    CallInFlight,
    Dead,
    Discarded,
    End,
    Explanation,
    Leased,
    Obstacle,
    Paused,
    Processed,
    Ready,
    Unregistered,
    Unrouted,
    Waiting,
)
from domain.reservations.events import RESERVATION_CONFIRM
from domain.runtime.logs import printable
from worker.commands import command_line, options, why_not_free
from worker.commands.command_line import DONE, Command
from worker.commands.output import instant, print_json, print_wrapped, rows
from worker.commands.runner import opened

MEMBERS = (
    "deliveries, a list of event_id, reservation_id, type, destination, created_at, replayed_at and states; each state"
    " has a kind (delivered, dead, discarded, unrouted, unregistered, paused, breaker_open, blocked_by_earlier_event,"
    " in_flight, waiting, leased or ready), and of at, since, until, error, reason, attempts, event_id, type and holder"
    " those that this kind has."
)


@click.command(
    "bin/why",
    cls=Command,
    examples=[
        "bin/why 01939b52-3a1e-7000-8000-5c1f0e6a9d21",
        "bin/why --item ROOM-1 --start 2030-05-03T15:00:00Z --end 2030-05-05T11:00:00Z",
        "bin/why 01939b52-3a1e-7000-8000-5c1f0e6a9d21 --quantity 3",
    ],
    exit_codes={
        0: "it was explained, whatever the state",
        1: "there is no such event, reservation or item, or the database failed",
    },
)
@click.argument(
    "subject_id",
    metavar="[EVENT_ID|RESERVATION_ID]",
    required=False,
    type=click.UUID,
    help="The id of an event, or of a reservation for all its events.",
)
@click.option("--item", metavar="SKU", help="Explain why this item can't be reserved, instead.")
@click.option("--start", metavar="TIME", type=options.instant, help="From when it is wanted, if it is a calendar.")
@click.option("--end", metavar="TIME", type=options.instant, help="Until when it is wanted.")
@click.option("--quantity", metavar="N", type=options.POSITIVE, help="How many units are wanted; of an item, 1.")
@options.as_json(f"{MEMBERS} Or, {why_not_free.MEMBERS}")
def why(
    subject_id: UUID | None,
    item: str | None,
    start: datetime | None,
    end: datetime | None,
    quantity: int | None,
    as_json: bool,
) -> int:
    """Explain why an event, a reservation or a change does not happen.

    For each event and each destination it prints what happened, or everything that prevents the delivery, and what to
    do about it. For an item, and for a reservation that another time or quantity is wanted for, it prints what is in
    the way now, and what is free instead.
    """
    if (subject_id is None) == (item is None):
        raise click.UsageError("Give the id of an event or of a reservation, or --item.")
    if (start is None) != (end is None):
        raise click.UsageError("Give both --start and --end, or neither.")
    wanted = why_not_free.Wanted(start, end, quantity)
    if item is not None:
        why_not_free.explain_item(item, wanted, as_json=as_json)
    elif subject_id is not None and any(wanted):
        why_not_free.explain_change(subject_id, wanted, as_json=as_json)
    elif subject_id is not None:
        _explain_delivery(subject_id, as_json=as_json)
    return DONE


def _explain_delivery(subject_id: UUID, *, as_json: bool) -> None:
    with opened("Nothing was explained.") as (db, routes), db.begin() as session:
        explanations = explain.explain(session, subject_id, routes.names)
    if as_json:
        print_json(deliveries=[_members(explanation) for explanation in explanations])
    else:
        for explanation in explanations:
            _print(explanation)


def _members(explanation: Explanation) -> Mapping[str, object]:
    states: Sequence[End | Obstacle] = [explanation.end] if explanation.end else explanation.obstacles
    return {
        "event_id": explanation.event_id,
        "reservation_id": explanation.aggregate_id,
        "type": explanation.type,
        "destination": explanation.destination,
        "created_at": explanation.created_at,
        "replayed_at": explanation.replayed_at,
        "states": [{"kind": state.kind, **asdict(state)} for state in states],
    }


def _print(explanation: Explanation) -> None:
    click.echo(f"{explanation.type} to {explanation.destination}, event {explanation.event_id}")
    replayed = f", replayed at {instant(explanation.replayed_at)}" if explanation.replayed_at else ""
    print_wrapped(f"Recorded at {instant(explanation.created_at)}{replayed}.", "  ")
    if explanation.end:
        print_wrapped(_describe_end(explanation.end, explanation), "  ")
    for obstacle in explanation.obstacles:
        print_wrapped(_describe_obstacle(obstacle, explanation.destination), "  ")


def _describe_end(end: End, explanation: Explanation) -> str:
    match end:
        # The row does not tell an answer of yes from one of no, nor from a question that was left out.
        case Processed(at=at) if explanation.type == RESERVATION_CONFIRM:
            return (
                f"Settled at {instant(at)}: {explanation.destination} answered, or was not asked because the hold had"
                f" ended.\nThe status of the reservation: GET /reservations/{explanation.aggregate_id}"
            )
        case Processed(at=at):
            return f"Delivered at {instant(at)}."
        case Discarded(at=at, error=error):
            return f"Discarded at {instant(at)}{_because(error)}. It can't be replayed any more."
        case Dead(since=since, error=error, attempts=attempts):
            return (
                f"Dead since {instant(since)}, after {rows(attempts, 'attempt')}{_because(error)}.\n"
                f"Replay it: bin/dead-letters replay --event {explanation.event_id} --why TEXT"
            )


def _describe_obstacle(obstacle: Obstacle, destination: str) -> str:
    match obstacle:
        case Unrouted() | Unregistered() | Paused() | BreakerOpen():
            return _describe_destination(obstacle, destination)
        case BlockedByEarlierEvent(event_id=event_id, type=event_type):
            return (
                f"Blocked by an earlier event of the same reservation, {event_type}, which is delivered first.\n"
                f"Why that event is not delivered: bin/why {event_id}"
            )
        case CallInFlight(until=until):
            return (
                f"Sent, and {destination} has not answered yet. It has time until {instant(until)} at the most; if its"
                " worker is killed, it is sent again."
            )
        case Waiting():
            return _describe_waiting(obstacle)
        case Leased(holder=holder, until=until):
            return (
                f"In turn: its lane is leased by {printable(holder)} until {instant(until)} or longer, and that worker"
                " delivers the lane in order."
            )
        case Ready():
            return (
                "Ready; waiting for a worker. None has leased its lane.\n"
                "If no worker is running: bin/worker, or once bin/process-outbox"
            )


def _describe_waiting(waiting: Waiting) -> str:
    until = f"Waiting until {instant(waiting.until)}"
    if waiting.attempts:
        return f"{until}, after {rows(waiting.attempts, 'failed attempt')}{_because(waiting.error)}."
    if waiting.error is not None:
        return f"{until}, because its destination was down{_because(waiting.error)}."
    return f"{until}, because an earlier event of its reservation had to wait."


def _describe_destination(obstacle: Unrouted | Unregistered | Paused | BreakerOpen, destination: str) -> str:
    match obstacle:
        case Unrouted():
            return (
                f"Pending: {destination} is not in the routes that HOLDFAST_ROUTES names, so no worker delivers it.\n"
                "Put it back into that file; bin/doctor says more."
            )
        case Unregistered():
            return (
                f"Pending: no worker has ever served {destination}, so it has no lanes. Start a worker that has"
                " it in its routes."
            )
        case Paused(reason=reason):
            return (
                f"Pending: {destination} is paused{_because(reason)}.\n"
                f"Resume it: bin/destinations resume {destination} --why TEXT"
            )
        case BreakerOpen(since=since, until=until, reason=reason):
            return (
                f"Pending: {destination} has been down since {instant(since)}{_because(reason)}. That costs no"
                f" attempts. Next probe: {_from(until)}.\nProbe it now: bin/destinations probe {destination} --why TEXT"
            )


def _because(error: str | None) -> str:
    return f" ({printable(error)})" if error else ""


def _from(moment: datetime | None) -> str:
    return f"from {instant(moment)}" if moment else "at once"


if __name__ == "__main__":
    command_line.run(why)
