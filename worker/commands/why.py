"""Say where each delivery of an event or of a reservation stands, and why it is not delivered."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations import explain
from domain.outbox.operations.explain import (
    BackingOff,
    BlockedByEarlierEvent,
    BreakerOpen,
    Dead,
    Delivery,
    Discarded,
    End,
    Unregistered,
    Leased,
    Obstacle,
    Paused,
    Processed,
    Ready,
    Unrouted,
)
from domain.outbox.routes import Routes
from worker.commands.output import instant, plain, rows, wrapped
from worker.commands.runner import DONE, turned


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bin/why", description=__doc__)
    parser.add_argument("which", metavar="EVENT_ID|RESERVATION_ID", type=UUID)
    asked = parser.parse_args(arguments)
    return turned(lambda db, routes: tell(db, routes, asked.which))


def tell(db: sessionmaker[Session], routes: Routes, which: UUID) -> int:
    """Print a paragraph for each delivery."""
    with db.begin() as session:
        deliveries = explain.why(session, which, [route.name for route in routes.destinations])
    for delivery in deliveries:
        print(f"{delivery.type} to {delivery.destination}, event {delivery.event_id}")
        for sentence in _sentences(delivery):
            print(wrapped(sentence, "  "))
    return DONE


def _sentences(delivery: Delivery) -> Sequence[str]:
    begun = f"Recorded at {instant(delivery.created_at)}" + (
        f", replayed at {instant(delivery.replayed_at)}." if delivery.replayed_at else "."
    )
    if delivery.end:
        return [begun, _ended(delivery.end, delivery.event_id)]
    return [begun, *(_hindered(one, delivery.destination) for one in delivery.obstacles)]


def _ended(end: End, event_id: UUID) -> str:
    match end:
        case Processed(at=at):
            return f"Delivered at {instant(at)}."
        case Discarded(at=at, error=error):
            return f"Discarded at {instant(at)}, having died{_of(error)}. It can't be replayed any more."
        case Dead(since=since, error=error, attempts=attempts):
            return (
                f"Dead since {instant(since)} after {rows(attempts, 'attempt')}{_of(error)}.\n"
                f"Send it again: bin/dead-letters replay --event {event_id} --why TEXT"
            )


def _hindered(obstacle: Obstacle, destination: str) -> str:
    match obstacle:
        case Unrouted():
            return (
                f"Pending: {destination} is not in the routes that HOLDFAST_ROUTES names, so nobody delivers it.\n"
                "Put it back into that file; bin/doctor says more."
            )
        case Unregistered():
            return f"Pending: no worker has ever served {destination}, so it has no lanes. Start one that has it."
        case Paused(reason=reason):
            return (
                f"Waiting: {destination} is paused{_of(reason)}.\n"
                f"Go on: bin/destinations resume {destination} --why TEXT"
            )
        case BreakerOpen(since=since, until=until, reason=reason):
            return (
                f"Waiting: {destination} has been down since {instant(since)}{_of(reason)}. It costs no attempts. Next"
                f" probe: {_from(until)}.\nTry now: bin/destinations probe {destination} --why TEXT"
            )
        case BlockedByEarlierEvent(event_id=event_id, type=event_type):
            return (
                f"Waiting behind {event_type} of the same reservation, which leaves first.\n"
                f"And why that has not left: bin/why {event_id}"
            )
        case BackingOff(until=until, attempts=attempts, error=error):
            return f"Waiting for another try at {instant(until)}, after {rows(attempts, 'failed attempt')}{_of(error)}."
        case Leased(holder=holder, until=until):
            return f"Its lane is in hand of {plain(holder)} until {instant(until)} or longer: it leaves in turn."
        case Ready():
            return "Ready: nothing is in the way, and no worker has come yet.\nIf none is running: bin/process-outbox"


def _of(error: str | None) -> str:
    return f" ({plain(error)})" if error else ""


def _from(moment: datetime | None) -> str:
    return f"from {instant(moment)}" if moment else "at once"


if __name__ == "__main__":
    sys.exit(main())
