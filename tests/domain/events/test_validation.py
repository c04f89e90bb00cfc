"""The schemas of events: everything that is recorded fits one, and what fits none is not recorded."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
from sqlalchemy import Column, String, update

from domain import reservations
from domain.events import validation
from domain.events.validation import SCHEMAS, VERSION, UnfitEvent, schema_id
from domain.fulfilment import confirmation
from domain.items import MAX_ID, MAX_QUANTITY
from domain import items
from domain.outbox import Event, record
from domain.outbox.routes import STEPS, Routes
from domain.outbox.table import outbox
from domain.reservations import Change, Reservation
from domain.reservations.events import CREATED, OWN_EVENT, STATUS_CHANGED
from domain.reservations.lifecycle import RELEASING, TRANSITIONS, Status
from domain.reservations.table import reservations as table
from domain.runtime import database
from tests.support.builders import Db, a_hold, an_event, an_item, an_overdue_hold, available, recorded
from tests.support.outbox import rows

Schema = dict[str, Any]

#: All that the domain can record.
TYPES = sorted({CREATED, STATUS_CHANGED, *OWN_EVENT.values(), *STEPS})

FROM = set(TRANSITIONS)
TO = set().union(*TRANSITIONS.values())

#: A value of another type than any member has.
WRONG = {"string": 7.5, "integer": "7", "null": 7.5}


def schema(event_type: str) -> Schema:
    return dict(json.loads((SCHEMAS / f"{event_type}.{VERSION}.json").read_text()))


def statuses(event_type: str, member: str) -> set[Status]:
    return {Status(name) for name in schema(event_type)["properties"][member]["enum"]}


def length(column: Column[str]) -> int:
    """What a column of text can hold, in characters."""
    assert isinstance(column.type, String) and column.type.length
    return column.type.length


def test_every_event_type_has_a_schema_and_no_schema_is_left_over() -> None:
    assert sorted(path.name for path in SCHEMAS.iterdir()) == [f"{name}.{VERSION}.json" for name in TYPES]
    assert all(len(name) <= length(outbox.c.type) for name in TYPES)


@pytest.mark.parametrize("event_type", TYPES)
def test_a_schema_is_valid_complete_and_stands_alone(event_type: str) -> None:
    found = schema(event_type)

    jsonschema_rs.meta.validate(found)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (found["$id"], found["title"]) == (schema_id(event_type), event_type)
    assert found["additionalProperties"] is False
    assert found["required"] == list(found["properties"])
    assert all(member["description"] for member in [found, *found["properties"].values()])
    assert "$ref" not in json.dumps(found)
    for example in found["examples"]:
        jsonschema_rs.Draft202012Validator(found, validate_formats=True).validate(example)


def test_members_that_several_types_share_mean_the_same_in_each() -> None:
    shared = ("booking_id", "item_id", "sku", "quantity", "version", "guest_id")

    for name in shared:
        assert all(schema(one)["properties"][name] == schema(CREATED)["properties"][name] for one in TYPES)
    assert schema(CREATED)["properties"]["quantity"]["maximum"] == MAX_QUANTITY


def test_what_a_table_can_hold_fits() -> None:
    """Or a sweep would stop for ever at a row that was rightly written."""
    properties = schema(CREATED)["properties"]

    assert properties["sku"]["maxLength"] == length(items.items.c.sku)
    assert properties["guest_id"]["maxLength"] == length(table.c.guest_id)
    validation.check(CREATED, an_event(item_id=MAX_ID, version=MAX_QUANTITY, guest_id="", sku="").payload)


def test_the_statuses_of_a_schema_are_those_that_the_lifecycle_allows() -> None:
    assert statuses(STATUS_CHANGED, "from_status") == FROM
    assert statuses(STATUS_CHANGED, "to_status") == statuses(STATUS_CHANGED, "status") == TO
    for to, name in OWN_EVENT.items():
        assert statuses(name, "to_status") == statuses(name, "status") == {to}
        assert statuses(name, "from_status") == {current for current, allowed in TRANSITIONS.items() if to in allowed}
    assert statuses("reservation_release", "status") == {Status.PENDING, *RELEASING}


def test_everything_that_the_domain_tells_fits_its_schema(db: Db) -> None:
    for current, allowed in TRANSITIONS.items():
        for to in allowed:
            changed(db, came_to(db, current), to)
    asked = [an_overdue_hold(db, an_item(db)), *(a_hold(db, an_item(db)) for _ in range(3))]
    ended = [came_to(db, status) for status in RELEASING]
    with db.begin() as session:
        lapsed, confirmed, refused, given_up = (one.id for one in asked)
        taken_back = [lapsed, *(one.id for one in ended)]
        said_yes = [confirmed, *taken_back]
        confirmation.answer(session, confirmed=said_yes, refused={refused: "Zoë\n\u2028"}, given_up={given_up: ""})
    an_overdue_hold(db, an_item(db))
    with db.begin() as session:
        assert reservations.expire(session, 10) == 1

    told = rows(db)

    assert {one.type for one in told} == set(TYPES)
    for one in told:
        jsonschema_rs.Draft202012Validator(schema(one.type), validate_formats=True).validate(one.payload)


def came_to(db: Db, status: Status) -> Reservation:
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        # A block has no time to lapse at.
        values = {"status": status, "expires_at": hold.expires_at if status is not Status.BLOCKED else None}
        session.execute(update(table).where(table.c.id == hold.id).values(values))
        return reservations.get(session, hold.id)


def changed(db: Db, one: Reservation, to: Status) -> None:
    with db.begin() as session:
        (after,) = reservations.transition(session, [Change(of=one, to=to, reason="because", changed_by="someone")])
        assert isinstance(after, Reservation) and after.status is to


def broken(event_type: str) -> Iterator[tuple[str, Event]]:
    """Events of a type, each broken in one place, with the name of the place."""
    whole = dict(an_event(event_type=event_type).payload)
    for name, member in schema(event_type)["properties"].items():
        yield name, Event(event_type, uuid4(), {key: value for key, value in whole.items() if key != name})
        first = member["type"] if isinstance(member["type"], str) else member["type"][0]
        yield name, Event(event_type, uuid4(), whole | {name: WRONG[first]})
        if "null" not in member["type"]:
            yield name, Event(event_type, uuid4(), whole | {name: None})
        if {"enum", "format"} & member.keys():
            yield name, Event(event_type, uuid4(), whole | {name: "secret"})
        if "maxLength" in member:
            yield name, Event(event_type, uuid4(), whole | {name: "secret" * 11})
        if "minimum" in member:
            yield name, Event(event_type, uuid4(), whole | {name: 0})
    yield "guest_name", Event(event_type, uuid4(), whole | {"guest_name": "secret"})
    yield "booking_id", Event(event_type, uuid4(), whole | {"booking_id": uuid4()})


@pytest.mark.parametrize("event_type", TYPES)
def test_a_payload_that_is_broken_anywhere_is_not_recorded_and_its_error_says_where(db: Db, event_type: str) -> None:
    for name, event in broken(event_type):
        with pytest.raises(UnfitEvent) as refused:
            recorded(db, an_event(), event)

        said = str(refused.value)
        assert event_type in said and "payload" in said and (name in said or "UUID" in said), said
        assert "secret" not in said and refused.value.__cause__ is None

    assert rows(db) == []


def test_an_event_type_without_a_schema_is_not_recorded(db: Db) -> None:
    with pytest.raises(UnfitEvent, match=r"booking\.moved .*docs/events/booking\.moved\.v1\.json"):
        recorded(db, Event("booking.moved", uuid4(), an_event().payload))

    assert rows(db) == []


def test_an_unfit_event_undoes_the_whole_transaction(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)
    before = rows(db)

    with pytest.raises(UnfitEvent), db.begin() as session:
        (held,) = reservations.lock(session, [hold.id])
        reservations.transition(session, [Change(of=held, to=Status.CANCELLED)])
        record(session, [an_event(quantity=0)])

    assert rows(db) == before
    assert available(db, item) == 3
    with db.begin() as session:
        assert reservations.get(session, hold.id) == hold


def test_an_unfit_event_is_refused_also_when_nobody_wants_it(db: Db) -> None:
    nowhere = database.sessions(db.kw["bind"], routes=Routes([]))

    with pytest.raises(UnfitEvent):
        recorded(nowhere, an_event(quantity=0))
