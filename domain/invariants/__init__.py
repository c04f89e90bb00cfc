"""Invariants: what `bin/doctor` and the tests check, on a live database, one file a noun."""

from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from domain.invariants import audit, bookings, calendars, feed, items, outbox, reservations, schema
from domain.invariants.invariant import Finding, Invariant, check

__all__ = ["INVARIANTS", "Finding", "Invariant", "examine"]

INVARIANTS = (
    *items.INVARIANTS,
    *calendars.INVARIANTS,
    *reservations.INVARIANTS,
    *bookings.INVARIANTS,
    *outbox.INVARIANTS,
    *feed.INVARIANTS,
    *audit.INVARIANTS,
)


def examine(
    session: Session, *, routed: Collection[str] | None = None, of_keys: Sequence[Invariant] = ()
) -> Sequence[Finding]:
    """Check every invariant, or only that the database is migrated if it is not.

    With `routed`, the names of the destinations in the routes, no other may have events. `of_keys` are further
    invariants, about the keys of personal data.
    """
    migrated = schema.check(session)
    if migrated.violations:
        return [migrated]
    of_routes = [] if routed is None else [outbox.routed_only(routed)]
    return [migrated, *(check(session, invariant) for invariant in (*INVARIANTS, *of_routes, *of_keys))]
