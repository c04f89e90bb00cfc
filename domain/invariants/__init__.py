"""Invariants: what `bin/doctor` and the tests check, on a live database, one file a noun."""

from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from domain.invariants import items, outbox, reservations
from domain.invariants.invariant import Finding, Invariant, check

__all__ = ["INVARIANTS", "Finding", "Invariant", "examine"]

INVARIANTS = (*items.INVARIANTS, *reservations.INVARIANTS, *outbox.INVARIANTS)


def examine(session: Session, *, routed: Collection[str] | None = None) -> Sequence[Finding]:
    """Check every invariant. With `routed`, the names of the destinations in the routes, no other may have events."""
    invariants = INVARIANTS if routed is None else (*INVARIANTS, outbox.routed_only(routed))
    return [check(session, invariant) for invariant in invariants]
