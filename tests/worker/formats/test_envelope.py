"""The envelope of the booking contract."""

import json
from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import Row
from tests.support.builders import Db, an_event, recorded
from tests.support.outbox import a_lane, fetched, with_shop
from worker.formats.envelope import wrap

MOMENT = datetime(2030, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def a_row(event_type: str = "booking.created", payload: str = "{}") -> Row:
    return Row(1, uuid4(), uuid4(), event_type, payload, "{}", 0, MOMENT, None, None, MOMENT)


def test_an_envelope_has_the_members_of_the_contract_and_the_id_of_the_event() -> None:
    row = a_row(payload='{"booking_id": "b"}')

    assert json.loads(wrap(row)) == {
        "event_id": str(row.event_id),
        "event_type": "booking.created",
        "payload": {"booking_id": "b"},
        "timestamp": "2030-01-01T12:00:00.123456+00:00",
        "source": "booking-reservation-service",
        "version": "1.0",
    }


@given(texts, documents)
def test_an_envelope_is_one_line_of_valid_json_whatever_the_event_contains(event_type: str, payload: object) -> None:
    wrapped = wrap(a_row(event_type, json.dumps(payload)))

    assert json.loads(wrapped)["event_type"] == event_type
    assert json.loads(wrapped)["payload"] == payload
    assert "\n" not in wrapped and "\r" not in wrapped
    wrapped.encode()


def test_a_payload_is_sent_as_it_was_recorded(db: Db) -> None:
    shop = with_shop(db)
    reason = 'line\nbreak "quoted" \\ ü \u2028 😀'
    event = an_event(event_type="booking.cancelled", reason=reason, item_id=2**63 - 1)
    recorded(shop, event)

    (row,) = fetched(shop, a_lane(shop))

    assert json.loads(wrap(row))["payload"] == event.payload
    assert "\n" not in wrap(row)
