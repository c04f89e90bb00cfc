"""An example of each operation on calendars, for the OpenAPI document."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from api.calendars.schemas import (
    AvailabilityList,
    AvailabilityQuestion,
    AvailabilityView,
    CalendarName,
    NewBlock,
    StepView,
)
from api.http.fields import ITEM_ID, SKU
from api.http.headers import ETAG, KEY, LOCATION, REPLAYED
from api.http.openapi import Shown
from api.reservations.examples import HOLD
from domain.reservations.lifecycle import Status

START = datetime(2030, 5, 6, 8, 0, tzinfo=UTC)
BLOCK = replace(
    HOLD,
    status=Status.BLOCKED,
    start=START,
    end=START + timedelta(days=1),
    expires_at=None,
    guest=None,
    note="The carpet is being cleaned",
)

NOON, END = START + timedelta(hours=4), START + timedelta(hours=8)
AVAILABILITY = AvailabilityView(ITEM_ID, SKU, steps=[StepView(START, NOON, 0), StepView(NOON, END, 2)], starts=[NOON])

OPERATIONS: Mapping[str, Shown] = {
    "get_availability": Shown(answer=AVAILABILITY),
    "find_availability": Shown(
        body=AvailabilityQuestion(
            items=[CalendarName(sku=SKU)],
            since=START,
            until=END,
            quantity=2,
            duration_seconds=14_400,
            step_seconds=7_200,
        ),
        answer=AvailabilityList([AVAILABILITY]),
    ),
    "make_block": Shown(
        body=NewBlock(start=START, end=START + timedelta(days=1), note=BLOCK.note),
        answer=BLOCK,
        reads=(KEY,),
        writes=LOCATION | ETAG | REPLAYED,
    ),
}
