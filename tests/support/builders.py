"""What tests begin with: an item, a request, a hold, an event; each made in one line."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session, sessionmaker

from api.reservations.schemas import render_reservation
from domain import calendars, items, reservations
from domain.calendars import Period
from domain.calendars.table import occupancies
from domain.events.validation import SCHEMAS, VERSION
from domain.fulfilment import CONFIRMATION, STEP_TYPES
from domain.idempotency import Answered, Key
from domain.items import Item
from domain.outbox import Event, Route, Routes, record, register
from domain.reservations import Claim, Deferred, Reservation, Reserve
from domain.reservations.lifecycle import Status
from domain.reservations.table import is_hold, reservation_lines
from domain.reservations.table import reservations as table
from domain.runtime.errors import Refusal
from domain.runtime.settings import Settings

Db = sessionmaker[Session]

#: Where events go in tests that do not say otherwise. Nothing delivers them.
ROUTES = Routes(
    [Route(name="events", url="null:", events=("booking.*",))],
    [Route(name=CONFIRMATION, url="null:", events=tuple(STEP_TYPES))],
    STEP_TYPES,
)


def with_routes(db: Db, routes: Routes) -> Db:
    """Register the destinations of these routes. Return sessions on the same database that record by the routes."""
    with db.begin() as session:
        register(session, routes.names)
    return sessionmaker(db.kw["bind"], info={"routes": routes}, expire_on_commit=False)


def routes_of(db: Db) -> Routes:
    """The routes by which a test records with these sessions."""
    routes: Routes = db.kw.get("info", {}).get("routes", ROUTES)
    return routes


def some_settings(**fields: object) -> Settings:
    """Settings that lead nowhere, but for those given."""
    return Settings.model_validate({"database_url": "postgresql://nowhere/none"} | fields)


def an_item(db: Db, quantity: int = 10, sku: str | None = None) -> Item:
    with db.begin() as session:
        return items.create(session, sku=sku or f"SKU-{uuid4().hex[:12]}", name="Thing", available_quantity=quantity)


def a_calendar(
    db: Db,
    capacity: int = 1,
    sku: str | None = None,
    time_zone: str = "UTC",
    venue: str | None = None,
    provider: str | None = None,
    price: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> Item:
    given = calendars.Settings(capacity=capacity, time_zone=time_zone, **settings)
    sku = sku or f"CAL-{uuid4().hex[:12]}"
    with db.begin() as session:
        return calendars.create(session, sku=sku, name="Room", settings=given, venue=venue, provider=provider, **price)


#: The day on which tests reserve time: a Friday.
FRIDAY = datetime(2030, 5, 3, tzinfo=UTC)


def hours(start: float, end: float) -> Period:
    """The period between these hours, counted from the midnight before that Friday."""
    return Period(FRIDAY + timedelta(hours=start), FRIDAY + timedelta(hours=end))


def a_time_request(of: Item, period: Period, quantity: int = 1, **fields: object) -> Reserve:
    """A request to hold time of a calendar."""
    return a_request(of, quantity, **({"lines": (Claim(of.id, quantity, period),)} | fields))  # type: ignore[arg-type]


def a_time_hold(db: Db, item: Item, period: Period, quantity: int = 1, **fields: object) -> Reservation:
    """Time of a calendar that is held, or has another status from its beginning."""
    (outcome,) = reserve(db, a_time_request(item, period, quantity, render=lambda made: str(made.id), **fields))
    assert isinstance(outcome, Answered), outcome
    return the(db, outcome.text)


def the(db: Db, reservation_id: str) -> Reservation:
    with db.begin() as session:
        return reservations.get(session, UUID(reservation_id))


def a_request(of: Item, quantity: int = 1, key: str | None = None, **fields: object) -> Reserve:
    """A request to hold an item; with a key, its payload is the item and the quantity."""
    wanted = {
        "lines": (Claim(of.id, quantity),),
        "hold_for": timedelta(minutes=15),
        "key": key and Key("client", "reservations.make", key),
        "payload_hash": f"v1:{of.id}-{quantity}",
        "render": render_reservation,
    }
    return Reserve(**(wanted | fields))  # type: ignore[arg-type]


def a_basket(*lines: tuple[Item, int], key: str | None = None) -> Reserve:
    """A request to hold several items, each with a quantity."""
    claims = tuple(Claim(item.id, quantity) for item, quantity in lines)
    payload_hash = ",".join(f"{claim.item}-{claim.quantity}" for claim in claims)
    return a_request(lines[0][0], key=key, lines=claims, payload_hash=f"v1:{payload_hash}")


def reserve(db: Db, *requests: Reserve) -> list[Answered | Refusal | Deferred]:
    """Reserve as one set, in a transaction of its own."""
    with db.begin() as session:
        return list(reservations.reserve(session, requests, routes_of(db)))


def a_hold(db: Db, item: Item, quantity: int = 1) -> Reservation:
    (outcome,) = reserve(db, a_request(item, quantity))
    assert isinstance(outcome, Answered), outcome
    with db.begin() as session:
        return reservations.find(session, reservations.Filter(item_id=item.id), limit=1).reservations[0]


def an_overdue_hold(db: Db, item: Item, quantity: int = 1) -> Reservation:
    hold = a_hold(db, item, quantity)
    let_lapse(db, hold.id)
    with db.begin() as session:
        (locked,) = reservations.lock(session, [hold.id])
    return locked


def stored_as(db: Db, status: Status) -> set[UUID]:
    """Return the ids of the reservations with that status in the table: an overdue hold is PENDING there."""
    with db.begin() as session:
        return set(session.execute(select(table.c.id).where(table.c.status == status)).scalars())


def let_lapse(db: Db, reservation_id: UUID) -> None:
    """Make a hold overdue, by a second."""
    ended = table.c.created_at - timedelta(seconds=1)
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == reservation_id).values(expires_at=ended))
        its_lines = reservation_lines.c.reservation_id == reservation_id
        until = select(case((is_hold, table.c.expires_at))).where(table.c.id == reservation_id).scalar_subquery()
        its_stock_lines = its_lines & reservation_lines.c.held_until.is_not(None)
        session.execute(update(reservation_lines).where(its_stock_lines).values(held_until=until))
        its_time = occupancies.c.reservation_id == reservation_id
        session.execute(update(occupancies).where(its_time).values(held_until=until))


def available(db: Db, item: Item) -> int:
    with db.begin() as session:
        return items.get(session, item.id).available_quantity


def an_event(aggregate_id: UUID | None = None, event_type: str = "booking.created", **payload: object) -> Event:
    """An event as its schema shows one, but for what is given."""
    aggregate_id = aggregate_id or uuid4()
    return Event(event_type, aggregate_id, _example(event_type) | {"booking_id": str(aggregate_id)} | payload)


@cache
def _example(event_type: str) -> dict[str, Any]:
    schema = json.loads((SCHEMAS / f"{event_type}.{VERSION}.json").read_text())
    (example,) = schema["examples"]
    return dict(example)


def recorded(db: Db, *events: Event) -> None:
    with db.begin() as session:
        record(session, events, routes_of(db))
