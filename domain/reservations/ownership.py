"""Ownership: which reservations are within the reach of a request. All others do not exist for it."""

from collections.abc import Sequence

from domain.access import EVERYTHING, Reach
from domain.items import Item
from domain.reservations.table import Reservation
from domain.runtime.errors import NotAllowed


def is_within(one: Reservation, reach: Reach) -> bool:
    """Return whether a reservation is within reach."""
    return reach.covers(venue=one.venue, provider=one.provider, guest_id=one.guest_id)


def made_for(guest_id: str | None, reach: Reach, operation: str) -> tuple[str | None, Reach]:
    """Return for which guest a reservation is to be made, and within what its items must be.

    A guest reserves whatever is offered, but for nobody else. Hosts reserve what is theirs, for any guest. Raises
    NotAllowed, which names the operation.
    """
    if reach.is_everything:
        return guest_id, reach
    if reach.guest_id is not None and guest_id in (None, reach.guest_id):
        return reach.guest_id, EVERYTHING
    if not reach.venues and not reach.providers:
        raise NotAllowed(operation)
    return guest_id, reach


def owners_of(items: Sequence[Item]) -> tuple[str | None, str | None]:
    """Return the venue and the provider to which a reservation of these items belongs: those of all of them, or None.

    Nobody gets a right to the items of others by reserving them together with their own.
    """
    first, *others = items
    venue, provider = first.venue, first.provider
    for item in others:
        venue = venue if venue == item.venue else None
        provider = provider if provider == item.provider else None
    return venue, provider
