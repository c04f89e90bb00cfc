"""Creation: writing the reservations that were accepted, with their lines, history, events and stock."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Text, insert, literal_column, select
from sqlalchemy.orm import Session

from domain import bookings, items, outbox
from domain.calendars.occupancies import take_query
from domain.items import Item
from domain.outbox import Routes
from domain.privacy import guests
from domain.providers import slot_of
from domain.reservations import events
from domain.reservations.decisions import Reserve
from domain.reservations.lifecycle import Kind, Status
from domain.reservations.ownership import owners_of
from domain.reservations.table import Line, Reservation, history, reservation_lines, reservations, units_of
from domain.reservations.taken import taken_by
from domain.runtime.database import records
from domain.runtime.encoding import encode, encoded
from domain.runtime.identity import new_ids
from domain.runtime.pipeline import Query


class Made(NamedTuple):
    """A request, the reservation that was made for it, and the items of its lines."""

    request: Reserve
    reservation: Reservation
    items: Sequence[Item]


def make(accepted: Sequence[tuple[Reserve, Sequence[Item]]], moment: datetime, routes: Routes) -> Sequence[Made]:
    """Return a reservation for each request, with the items of its lines. Nothing is written yet."""
    ids = new_ids(moment)
    made = [Made(request, _reservation(request, of, moment, ids), of) for request, of in accepted]
    return [_with_booking(one, routes) if one.request.booking else one for one in made]


def _with_booking(made: Made, routes: Routes) -> Made:
    request, reservation, (calendar, *_) = made
    assert request.booking is not None
    reference, booking = bookings.begin(
        request.booking, reservation.id, calendar, request.lines[0].quantity, request.period, routes
    )
    return made._replace(reservation=replace(reservation, booking_reference=reference, booking=booking))


def write_queries(session: Session, made: Sequence[Made], routes: Routes) -> Iterator[Query]:
    """Yield the queries that write reservations and all that belongs to them. The caller has locked their items."""
    yield Query(_INSERT, {"given": encode([_row(request, one) for request, one, _ in made])})
    lines = [row for _, one, _ in made if one.further_lines for row in _lines(one)]
    if lines:
        yield Query(_INSERT_LINES, {"given_lines": encode(lines)})
    if given := [(one.id, request.guest) for request, one, _ in made if request.guest]:
        yield guests.insert_query(given)
    if begun := [one.booking for _, one, _ in made if one.booking]:
        yield bookings.insert_query(begun)
    created = (event for request, one, _ in made for event in events.of_creation(one, request.headers))
    recorded = outbox.record_query(session, created, routes)
    if recorded:
        yield recorded
    if time := [taken for one in made for taken in taken_by(one.reservation, one.items)]:
        yield take_query(time)
    if units := units_of(one.reservation for one in made):
        yield items.move_query({item_id: -quantity for item_id, quantity in units.items()})


def _reservation(request: Reserve, of: Sequence[Item], moment: datetime, ids: Iterator[UUID]) -> Reservation:
    # Nothing was made in the future, where lists in order of time would show it before what is made next.
    made_at = moment if request.made_at is None else min(request.made_at, moment)
    item, claim = of[0], request.lines[0]
    venue, provider = owners_of(of)
    return Reservation(
        id=next(ids) if made_at is moment else next(new_ids(made_at)),
        item_id=item.id,
        sku=item.sku,
        quantity=claim.quantity,
        further_lines=() if len(of) == 1 else _further_lines(request, of),
        status=request.status,
        version=1,
        expires_at=_expires_at(request, item, moment),
        starts_at=request.period.start if request.period else None,
        ends_at=request.period.end if request.period else None,
        client_id=request.client_id,
        external_reference=request.external_reference,
        guest_id=request.guest_id,
        venue=venue,
        provider=provider,
        source=request.source,
        note=request.note,
        metadata=request.metadata,
        created_at=made_at,
        updated_at=moment,
        confirmed_at=made_at if request.status in (Status.CONFIRMED, Status.CHECKED_IN) else None,
        checked_in_at=made_at if request.status is Status.CHECKED_IN else None,
        slot=slot_of(item) if len(of) == 1 else None,
    )


def _expires_at(request: Reserve, item: Item, moment: datetime) -> datetime | None:
    if request.status is not Status.PENDING:
        return None
    if request.of_slot:
        return item.slot_starts_at
    return moment + request.hold_for if request.hold_for else None


def _further_lines(request: Reserve, of: Sequence[Item]) -> tuple[Line, ...]:
    claimed = zip(of[1:], request.lines[1:], strict=True)
    return tuple(Line(item_id=item.id, sku=item.sku, quantity=claim.quantity) for item, claim in claimed)


_COLUMNS = (
    "id",
    "item_id",
    "idempotency_key",
    "quantity",
    "line_count",
    "status",
    "expires_at",
    "starts_at",
    "ends_at",
    "client_id",
    "external_reference",
    "guest_id",
    "booking_reference",
    "venue",
    "provider",
    "source",
    "note",
    "metadata_text",
    "metadata",
    "created_at",
    "updated_at",
    "confirmed_at",
    "checked_in_at",
)


_given = records("given", changed_by=Text, **{name: reservations.c[name].type for name in _COLUMNS})
_noted = insert(history).from_select(
    ["reservation_id", "to_status", "changed_by", "kind"],
    select(_given.c.id, _given.c.status, _given.c.changed_by, literal_column(f"'{Kind.CREATED}'")),
)
# One statement for both tables, because each one more is a round trip more for a lone request.
_INSERT = (
    insert(reservations)
    .from_select(_COLUMNS, select(*(_given.c[name] for name in _COLUMNS)))
    .add_cte(_noted.cte("noted"))
)


def _row(request: Reserve, made: Reservation) -> Mapping[str, Any]:
    row = {
        "id": made.id,
        "item_id": made.item_id,
        "quantity": made.quantity,
        "line_count": 1 + len(made.further_lines),
        "status": made.status,
        "client_id": made.client_id,
        "source": made.source,
        "created_at": made.created_at,
        "updated_at": made.updated_at,
        "changed_by": request.changed_by,
    }
    # What is null is left out, because it need not be encoded.
    if request.key is not None:
        row["idempotency_key"] = request.key.key
    if made.metadata is not None:
        row |= {"metadata_text": made.metadata, "metadata": encoded(made.metadata)}
    for name in _NULLABLE:
        if (value := getattr(made, name)) is not None:
            row[name] = value
    return row


_NULLABLE = (
    "expires_at",
    "starts_at",
    "ends_at",
    "external_reference",
    "guest_id",
    "booking_reference",
    "venue",
    "provider",
    "note",
    "confirmed_at",
    "checked_in_at",
)
_LINE_COLUMNS = ("reservation_id", "position", "item_id", "quantity", "held_until", "starts_at", "ends_at")
_given_lines = records("given_lines", **{name: reservation_lines.c[name].type for name in _LINE_COLUMNS})
_INSERT_LINES = insert(reservation_lines).from_select(
    _LINE_COLUMNS, select(*(_given_lines.c[name] for name in _LINE_COLUMNS))
)


def _lines(made: Reservation) -> Iterator[Mapping[str, Any]]:
    for position, line in enumerate(made.further_lines, start=2):
        yield {
            "reservation_id": made.id,
            "position": position,
            "item_id": line.item_id,
            "quantity": line.quantity,
            "held_until": None if made.period else made.held_until,
            "starts_at": made.starts_at,
            "ends_at": made.ends_at,
        }
