"""The schemas of events: every recorded event fits the schema of its type, and no other event is recorded."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
from sqlalchemy import Column, String, update

from domain import items, reservations
from domain.events import validation
from domain.events.validation import SCHEMAS, VERSION, InvalidEvent, schema_id
from domain.fulfilment import STEP_TYPES, confirmation
from domain.fulfilment.saga import STEP_EVENTS
from domain.items import MAX_ID, MAX_QUANTITY
from domain.outbox import Event, Routes, record
from domain.outbox.table import outbox
from domain.reservations import Amendment, Change, Extension, Reservation
from domain.reservations.events import (
    CREATED,
    EXTENDED,
    OWN_EVENT,
    REFUNDED,
    SLOT_EVENT,
    STATUS_CHANGED,
    UPDATED,
    WIRE_NAMES,
)
from domain.reservations.lifecycle import CHANGEABLE, RELEASING, TRANSITIONS, Status
from domain.reservations.table import reservations as table
from tests.support.builders import (
    Db,
    a_hold,
    an_event,
    an_item,
    an_overdue_hold,
    available,
    recorded,
    routes_of,
    with_routes,
)
from tests.support.outbox import rows

Schema = dict[str, Any]

#: All event types that the domain can record.
TYPES = sorted(
    {CREATED, STATUS_CHANGED, EXTENDED, UPDATED, REFUNDED, *OWN_EVENT.values(), *SLOT_EVENT.values(), *STEP_TYPES}
)

#: Those of bookings alone. The events of a booking have these members, and no other event has them.
OF_BOOKINGS = {REFUNDED, *STEP_EVENTS}
OF_BOOKINGS_ONLY = {"booking_reference", "venue_id"}

FROM = set(TRANSITIONS)
TO = set().union(*TRANSITIONS.values())

#: A value of another type than any member has.
WRONG = {"string": 7.5, "integer": "7", "null": 7.5, "array": "7"}


def schema(event_type: str) -> Schema:
    return dict(json.loads((SCHEMAS / f"{event_type}.{VERSION}.json").read_text()))


def statuses(event_type: str, member: str) -> set[Status]:
    return {Status(name) for name in schema(event_type)["properties"][member]["enum"]}


def length(column: Column[str]) -> int:
    """Return how many characters a column of text can hold."""
    assert isinstance(column.type, String) and column.type.length
    return column.type.length


def test_every_event_type_has_a_schema_and_every_schema_a_type() -> None:
    assert sorted(path.name for path in SCHEMAS.iterdir()) == [f"{name}.{VERSION}.json" for name in TYPES]
    assert all(len(name) <= length(outbox.c.type) for name in TYPES)


@pytest.mark.parametrize("event_type", TYPES)
def test_a_schema_is_valid_complete_and_refers_to_no_other_schema(event_type: str) -> None:
    found = schema(event_type)

    jsonschema_rs.meta.validate(found)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (found["$id"], found["title"]) == (schema_id(event_type), event_type)
    assert found["additionalProperties"] is False
    optional = set() if event_type in OF_BOOKINGS else OF_BOOKINGS_ONLY
    assert found["required"] == [name for name in found["properties"] if name not in optional]
    assert all(member["description"] for member in [found, *found["properties"].values()])
    assert "$ref" not in json.dumps(found)
    (example,) = found["examples"]
    jsonschema_rs.Draft202012Validator(found, validate_formats=True).validate(example)


def test_members_that_several_types_share_mean_the_same_in_each() -> None:
    shared = ("booking_id", "item_id", "sku", "quantity", "lines", "version", "guest_id")

    for name in shared:
        assert all(schema(one)["properties"][name] == schema(CREATED)["properties"][name] for one in TYPES)
    assert schema(CREATED)["properties"]["quantity"]["maximum"] == MAX_QUANTITY


def test_every_value_that_a_table_can_hold_fits_the_schema() -> None:
    """Otherwise maintenance would stop for ever at a reservation that was accepted."""
    properties = schema(CREATED)["properties"]

    assert properties["sku"]["maxLength"] == length(items.items.c.sku)
    assert properties["guest_id"]["maxLength"] == length(table.c.guest_id)
    validation.validate(CREATED, an_event(item_id=MAX_ID, version=MAX_QUANTITY, guest_id="", sku="").payload)


def test_the_statuses_of_a_schema_are_those_that_the_lifecycle_allows() -> None:
    assert statuses(STATUS_CHANGED, "from_status") == FROM
    assert statuses(STATUS_CHANGED, "to_status") == statuses(STATUS_CHANGED, "status") == TO
    for to, name in OWN_EVENT.items():
        assert statuses(name, "to_status") == statuses(name, "status") == {to}
        assert statuses(name, "from_status") == {current for current, allowed in TRANSITIONS.items() if to in allowed}
    assert statuses("reservation_release", "status") == {Status.PENDING, *RELEASING}
    assert statuses(EXTENDED, "status") == CHANGEABLE["expires_at"]
    with_a_status = (TRANSITIONS[current] for current in CHANGEABLE["note"])
    assert statuses(UPDATED, "status") == CHANGEABLE["note"].union(*with_a_status)


def test_the_schema_of_a_change_names_every_field_that_can_be_changed_so() -> None:
    changeable = {WIRE_NAMES.get(name, name) for name in CHANGEABLE}
    assert {*schema(UPDATED)["properties"]["changed"]["items"]["enum"], "expires_at"} == changeable


def test_every_event_that_the_domain_records_fits_its_schema(db: Db) -> None:
    for current, allowed in TRANSITIONS.items():
        for to in allowed:
            changed(db, a_reservation(db, current), to)
    for current in CHANGEABLE["note"]:
        amended(db, a_reservation(db, current))
    with db.begin() as session:
        longer = Extension(timedelta(days=1))
        extended = reservations.change(session, a_hold(db, an_item(db)).id, longer, routes=routes_of(db))
        assert isinstance(extended, Reservation)
    asked = [an_overdue_hold(db, an_item(db)), *(a_hold(db, an_item(db)) for _ in range(3))]
    ended = [a_reservation(db, status) for status in RELEASING]
    overdue, confirmed, declined, given_up = (one.id for one in asked)
    with db.begin() as session:
        confirmation.answer(
            session,
            confirmed=[confirmed, overdue, *(one.id for one in ended)],
            declined=[declined],
            given_up=[given_up],
            routes=routes_of(db),
        )
    an_overdue_hold(db, an_item(db))
    with db.begin() as session:
        assert reservations.expire(session, 10, routes_of(db)) == 1

    elsewhere = OF_BOOKINGS | {*SLOT_EVENT.values()}
    assert {one.type for one in rows(db)} == set(TYPES) - elsewhere, "tests/worker/steps and test_slot_queues do those"
    for one in rows(db):
        jsonschema_rs.Draft202012Validator(schema(one.type), validate_formats=True).validate(one.payload)


def a_reservation(db: Db, status: Status) -> Reservation:
    """A reservation that has this status, whatever led to it."""
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        # A block never expires.
        values = {"status": status, "expires_at": hold.expires_at if status is not Status.BLOCKED else None}
        session.execute(update(table).where(table.c.id == hold.id).values(values))
        return reservations.get(session, hold.id)


def changed(db: Db, one: Reservation, to: Status) -> None:
    with db.begin() as session:
        change = Change(of=one, to=to, reason="Zoë\n\u2028", changed_by="someone")
        (after,) = reservations.transition(session, [change], routes_of(db))
        assert isinstance(after, Reservation) and after.status is to


def amended(db: Db, one: Reservation) -> None:
    with db.begin() as session:
        noted = Amendment({"note": "Zoë\n\u2028"})
        assert isinstance(reservations.change(session, one.id, noted, routes=routes_of(db)), Reservation)


def broken(event_type: str) -> Iterator[tuple[str, Event]]:
    """Yield events of a type that are each wrong in one member, with the name of the member."""
    whole = dict(an_event(event_type=event_type).payload)
    for name, member in schema(event_type)["properties"].items():
        if name in whole:
            yield name, Event(event_type, uuid4(), {key: value for key, value in whole.items() if key != name})
        first = member["type"] if isinstance(member["type"], str) else member["type"][0]
        yield name, Event(event_type, uuid4(), whole | {name: WRONG[first]})
        if "null" not in member["type"]:
            yield name, Event(event_type, uuid4(), whole | {name: None})
        if {"enum", "format", "pattern"} & member.keys():
            yield name, Event(event_type, uuid4(), whole | {name: "secret"})
        if "maxLength" in member:
            yield name, Event(event_type, uuid4(), whole | {name: ("secret" * 50)[: member["maxLength"] + 1]})
        if "minimum" in member:
            yield name, Event(event_type, uuid4(), whole | {name: 0})
    yield "guest_name", Event(event_type, uuid4(), whole | {"guest_name": "secret"})
    yield "booking_id", Event(event_type, uuid4(), whole | {"booking_id": uuid4()})


@pytest.mark.parametrize("event_type", TYPES)
def test_a_payload_with_a_wrong_member_is_not_recorded_and_the_error_names_the_member(db: Db, event_type: str) -> None:
    for name, event in broken(event_type):
        with pytest.raises(InvalidEvent) as refused:
            recorded(db, an_event(), event)

        message = str(refused.value)
        assert event_type in message and "payload" in message and (name in message or "UUID" in message), message
        assert "secret" not in message and refused.value.__cause__ is None

    assert rows(db) == []


def test_an_event_type_without_a_schema_is_not_recorded(db: Db) -> None:
    with pytest.raises(InvalidEvent, match=r"booking\.moved .*domain/events/schemas/booking\.moved\.v1\.json"):
        recorded(db, Event("booking.moved", uuid4(), an_event().payload))

    assert rows(db) == []


def test_an_invalid_event_undoes_the_whole_transaction(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)
    before = rows(db)

    with pytest.raises(InvalidEvent), db.begin() as session:
        locked = reservations.lock(session, [hold.id])
        reservations.transition(session, [Change(of=one, to=Status.CANCELLED) for one in locked], routes_of(db))
        record(session, [an_event(quantity=0)], routes_of(db))

    assert rows(db) == before
    assert available(db, item) == 3
    with db.begin() as session:
        assert reservations.get(session, hold.id) == hold


def test_an_invalid_event_is_refused_even_if_no_destination_wants_it(db: Db) -> None:
    nowhere = with_routes(db, Routes([]))

    with pytest.raises(InvalidEvent):
        recorded(nowhere, an_event(quantity=0))
