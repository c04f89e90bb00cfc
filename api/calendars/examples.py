"""An example of each operation on calendars, for the OpenAPI document."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from api.calendars.schemas import NewBlock
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

OPERATIONS: Mapping[str, Shown] = {
    "make_block": Shown(
        body=NewBlock(start=START, end=START + timedelta(days=1), note=BLOCK.note),
        answer=BLOCK,
        reads=(KEY,),
        writes=LOCATION | ETAG | REPLAYED,
    ),
}
