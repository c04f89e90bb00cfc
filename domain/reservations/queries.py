"""Reading reservations without changing them.

An overdue hold is read as EXPIRED from that moment on, whether maintenance has seen it or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from domain import items
from domain.access import EVERYTHING, Reach
from domain.calendars.periods import EARLIEST, LATEST
from domain.reservations import listing, overlapping
from domain.reservations.lifecycle import Status
from domain.reservations.listing import Scope
from domain.reservations.ownership import is_within
from domain.reservations.table import (
    FIELDS,
    Reservation,
    further_lines,
    is_overdue,
    metadata_of,
    reservations,
    status_by_now,
)
from domain.runtime import pipeline
from domain.runtime.database import READ_IN_INDEX_ORDER
from domain.runtime.errors import Invalid, UnknownReference, UnknownReservation
from domain.runtime.identity import HIGHEST_ID, LOWEST_ID, lowest_id
from domain.runtime.pipeline import Query

#: A page ends with the reservation that takes its texts (metadata, note and reason) to this many bytes.
MAX_PAGE_BYTES = 1_000_000

#: No index knows which holds are overdue, nor the third of three filters. There, reservations that do not match are
#: passed over, up to this many, and the page ends.
MAX_PASSED_OVER = 1_000

#: Lists of one's own are read by the owner only, whatever else is filtered, so they pass over more often. Up to this
#: many are passed over in each status, or in each class of durations.
MAX_OWN_PASSED_OVER = 500

#: While maintenance works, no more holds are overdue than it expires within seconds. Up to this many are read at once.
MAX_OVERDUE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a list is narrowed to. `since` and `before` bound the time of making, half-open."""

    status: Status | None = None
    item_id: int | None = None
    sku: str | None = None
    guest_id: str | None = None
    source: str | None = None
    venue: str | None = None
    provider: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def within(self, reach: Reach) -> "Filter | None":
        """Return the filter of what is within reach as well, or None if nothing can be.

        It reads the reservations of one owner. Raises Invalid if there are several within reach and it names none.
        """
        if reach.is_everything or any(getattr(self, kind) == owner for kind, owner in reach.owners):
            return self
        possible = [(kind, owner) for kind, owner in reach.owners if getattr(self, kind) is None]
        if len(possible) > 1:
            raise Invalid(possible[-1][0], f"say whose: {', '.join(f'{kind}={owner}' for kind, owner in possible)}")
        return replace(self, **dict(possible)) if possible else None  # type: ignore[arg-type]  # they are its fields


@dataclass(frozen=True, slots=True)
class Page:
    """Reservations, the newest first. If there is a `next_before`, older ones than that id may follow."""

    reservations: Sequence[Reservation]
    next_before: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The reservations of time that end after one instant and start before another: those that overlap what is between.

    Without one of them, the window is open on that side.
    """

    ends_after: datetime | None = None
    starts_before: datetime | None = None

    def __post_init__(self) -> None:
        """Move the bounds to where there can be reservations: a datetime can't hold what is computed from others."""
        for name in ("ends_after", "starts_before"):
            if (bound := getattr(self, name)) is not None:
                object.__setattr__(self, name, min(max(bound, EARLIEST), LATEST))


@dataclass(frozen=True, slots=True)
class WindowPage:
    """Reservations in order of their start. If there is a `next_after`, others may follow that start and id."""

    reservations: Sequence[Reservation]
    next_after: tuple[datetime, UUID] | None


def get_booking(session: Session, reference: str, reach: Reach = EVERYTHING) -> Reservation:
    """Return the reservation that has a booking reference. Raises UnknownReference, also if it is out of reach."""
    row = session.execute(_READ.where(reservations.c.booking_reference == reference)).one_or_none()
    found = row and Reservation.of(row)
    if not found or not is_within(found, reach):
        raise UnknownReference(reference)
    return found


def get(session: Session, reservation_id: UUID, reach: Reach = EVERYTHING) -> Reservation:
    """Return a reservation. Raises UnknownReservation, also if it is out of reach."""
    row = session.execute(_READ.where(reservations.c.id == reservation_id)).one_or_none()
    found = row and Reservation.of(row)
    if not found or not is_within(found, reach):
        raise UnknownReservation(reservation_id)
    return found


_READ = select(
    *(field for field in FIELDS if field is not reservations.c.status),
    further_lines,
    status_by_now.label("status"),
    items.items.c.sku,
    metadata_of(reservations.c),
).join_from(reservations, items.items)


def find(
    session: Session, wanted: Filter, *, before_id: UUID | None = None, limit: int, reach: Reach = EVERYTHING
) -> Page:
    """Return up to `limit` reservations within reach, the newest first, from before the id `before_id`.

    A page may be shorter, even empty, and have a `next_before` all the same: see MAX_PAGE_BYTES and MAX_PASSED_OVER.
    For the rest of the transaction, PostgreSQL reads by indexes only.
    """
    values = _values(session, wanted.within(reach))
    if values is None:
        return Page((), None)
    owner = owner_in(values, reach)
    scope = _scope(session, wanted.status, values) if owner is None else _own_scope(wanted.status)
    upper = HIGHEST_ID if wanted.before is None else lowest_id(wanted.before)
    parameters = listing.parameters(
        scope,
        status=wanted.status,
        lower=LOWEST_ID if wanted.since is None else lowest_id(wanted.since),
        upper=upper if before_id is None else min(upper, before_id),
        shown=limit,
        read=limit + (MAX_PASSED_OVER if owner is None else MAX_OWN_PASSED_OVER),
        most_bytes=MAX_PAGE_BYTES,
        **values,
    )
    return _page(_in_index_order(session, listing.statement(frozenset(values), scope, owner), parameters), limit)


def find_overlapping(
    session: Session,
    wanted: Filter,
    window: Window,
    *,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
    reach: Reach = EVERYTHING,
) -> WindowPage:
    """Return up to `limit` reservations within reach that overlap a window, in order of start and id, after these two.

    The time of making is not looked at. As with `find`, a page may be shorter, and have a `next_after` all the same.
    """
    values = _values(session, wanted.within(reach))
    if values is None:
        return WindowPage((), None)
    status = wanted.status
    owner = owner_in(values, reach)
    by_status = status is not None and not values.keys() & {"guest_id", "item_id", "venue", "provider"}
    # An overdue hold is stored as PENDING.
    also_stored = [Status.PENDING] if status is Status.EXPIRED else []
    parameters = overlapping.parameters(
        [status, *also_stored] if status and by_status else [],
        ends_after=window.ends_after,
        starts_before=window.starts_before,
        after=after,
        status=status,
        shown=limit,
        read=limit + (MAX_PASSED_OVER if owner is None else MAX_OWN_PASSED_OVER),
        most_bytes=MAX_PAGE_BYTES,
        **values,
    )
    statement = overlapping.statement(frozenset(values), by_status=by_status, judged=status is not None, owner=owner)
    read, is_full = _read(_in_index_order(session, statement, parameters), limit)
    next_after = (read[-1].starts_at, read[-1].id) if is_full else None
    return WindowPage([Reservation.of(row) for row in read if row.matches], next_after)


def _in_index_order(session: Session, statement: Select[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
    """Return the rows of a statement that is to read in the order of indexes, after one round trip."""
    return pipeline.execute(session, [Query(READ_IN_INDEX_ORDER, {}), Query(statement, parameters)])[1]


def _values(session: Session, wanted: Filter | None) -> Mapping[str, Any] | None:
    """Return the values that columns must have, or None if no reservation has them."""
    if wanted is None:
        return None
    item_id = wanted.item_id
    if wanted.sku is not None:
        session.execute(READ_IN_INDEX_ORDER)
        item_id = items.id_of(session, wanted.sku)
        if item_id is None or wanted.item_id not in (None, item_id):
            return None
    values = {
        "guest_id": wanted.guest_id,
        "item_id": item_id,
        "source": wanted.source,
        "venue": wanted.venue,
        "provider": wanted.provider,
    }
    return {column: value for column, value in values.items() if value is not None}


def owner_in(values: Mapping[str, Any], reach: Reach) -> str | None:
    """Return by which of the wanted values a list is one's own, if not everything is within reach.

    Such a list reads what has that value, and nothing else: what it shows, and how its pages end, must not depend on
    reservations of others. The values are those of a filter that is within reach.
    """
    if reach.is_everything:
        return None
    return next(kind for kind, owner in reach.owners if values.get(kind) == owner)


def _own_scope(status: Status | None) -> Scope:
    """Return which rows a list of one's own reads. How many holds of all are overdue has no influence on it."""
    if status is None:
        return listing.EVERY
    stored = (status, Status.PENDING) if status is Status.EXPIRED else (status,)
    return Scope(statuses=stored, judged=Status.PENDING in stored)


def _scope(session: Session, status: Status | None, values: Mapping[str, Any]) -> Scope:
    if status is None:
        return listing.EVERY
    if status is Status.PENDING:
        return Scope(statuses=(status,), judged=True)
    if status is not Status.EXPIRED:
        return Scope(statuses=(status,))
    if _overdue_count(session, values) <= MAX_OVERDUE:
        return Scope(statuses=(status,), overdue=True)
    # After an outage of maintenance, overdue holds are looked for among all holds, page by page.
    return Scope(statuses=(status, Status.PENDING), judged=True)


def _overdue_count(session: Session, values: Mapping[str, Any]) -> int:
    """Return how many holds are overdue, of one item if only that is wanted, counted up to MAX_OVERDUE and one more."""
    overdue = select(reservations.c.id).where(is_overdue).order_by(reservations.c.expires_at)
    if "item_id" in values:
        overdue = overdue.where(reservations.c.item_id == values["item_id"])
    session.execute(READ_IN_INDEX_ORDER)
    return session.execute(select(func.count()).select_from(overdue.limit(MAX_OVERDUE + 1).subquery())).scalar_one()


def _page(rows: Sequence[Row[Any]], limit: int) -> Page:
    read, is_full = _read(rows, limit)
    return Page([Reservation.of(row) for row in read if row.matches], read[-1].id if is_full else None)


def _read(rows: Sequence[Row[Any]], limit: int) -> tuple[Sequence[Row[Any]], bool]:
    """Return the rows of a page up to the first one that ends it, and whether others may follow."""
    end = next((place for place, row in enumerate(rows, start=1) if row.ends), None)
    read = rows[:end]
    is_full = len(read) == limit or (bool(read) and read[-1].total_bytes >= MAX_PAGE_BYTES)
    return read, is_full or end is not None
