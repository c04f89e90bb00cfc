"""Availability over HTTP: what is free of calendars over time."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, cast

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.calendars.cache import Cache
from api.calendars.schemas import (
    MAX_SECONDS,
    AvailabilityList,
    AvailabilityQuestion,
    AvailabilityView,
    starts_of,
)
from api.http.decoding import Strict
from api.http.queries import TIMESTAMP, timestamp_of
from api.http.responses import reading
from domain import calendars
from domain.calendars import Availability, Period, Starts
from domain.items import MAX_ID, MAX_QUANTITY
from domain.runtime.errors import Invalid, UnknownItem

AnyRequest = Request[Any, Any, Any]

IdInPath = Annotated[int, Parameter(ge=1, le=MAX_ID, description="The id of the calendar")]


@get(
    "/items/by-id/{item_id:str}/availability",
    responses=reading(UnknownItem),
    tags=["calendars"],
    operation="calendars.availability",
)
async def get_availability(
    request: AnyRequest,
    item_id: IdInPath,
    since: Annotated[str, Parameter(query="from", description="What is free from then on", schema_extra=TIMESTAMP)],
    until: Annotated[str, Parameter(query="to", description="Until just before then", schema_extra=TIMESTAMP)],
    availability: ClientBulkhead,
    quantity: Annotated[
        int | None,
        Parameter(ge=1, le=MAX_QUANTITY, description="The units that are free at free starts: 1, if not given"),
    ] = None,
    duration_seconds: Annotated[
        int | None, Parameter(ge=1, le=MAX_SECONDS, description="For how long they are free at free starts")
    ] = None,
    step_seconds: Annotated[
        int | None,
        Parameter(ge=60, le=MAX_SECONDS, description="How far free starts are apart, from the time `from` on"),
    ] = None,
) -> Response[AvailabilityView]:
    """Get what is free of a calendar over time, step by step.

    With `duration_seconds` and `step_seconds`, also when `quantity` units can be reserved for that long.
    """
    asked = _Question(
        (item_id,),
        _window(timestamp_of("from", since), timestamp_of("to", until)),
        starts_of(quantity, duration_seconds, step_seconds),
        _render_one,
    )
    return await _answer(request, availability, asked)


@post(
    "/availability",
    dto=Strict[AvailabilityQuestion],
    status_code=200,
    responses=reading(UnknownItem, has_body=True),
    tags=["calendars"],
    only_reads=True,
    operation="calendars.availability",
)
async def find_availability(
    request: AnyRequest, data: AvailabilityQuestion, availability: ClientBulkhead
) -> Response[AvailabilityList]:
    """Find what is free of several calendars over time. If one of them does not exist, the answer is 404."""
    asked = _Question(
        tuple(one.name for one in data.items),
        _window(data.since, data.until),
        starts_of(data.quantity, data.duration_seconds, data.step_seconds),
        _render_all,
    )
    return await _answer(request, availability, asked)


def _render_one(found: Sequence[Availability]) -> bytes:
    (one,) = found
    return msgspec.json.encode(AvailabilityView.of(one))


def _render_all(found: Sequence[Availability]) -> bytes:
    return msgspec.json.encode(AvailabilityList([AvailabilityView.of(one) for one in found]))


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of the calendars of these names, ids or skus, and how the answer is rendered."""

    names: tuple[int | str, ...]
    window: Period
    wanted: Starts | None
    render: Callable[[Sequence[Availability]], bytes]

    @property
    def key(self) -> bytes:
        """What differs between any two questions."""
        return sha256(repr((self.names, self.window, self.wanted, self.render.__name__)).encode()).digest()


async def _answer(request: AnyRequest, availability: ClientBulkhead, asked: _Question) -> Response[Any]:
    """Return the answer as it is by now: from the cache, if nothing has changed that it follows from.

    A kept answer begins with the question and with the mark of what it followed from. So it does not matter who keeps
    it when, and nobody has to delete it.
    """
    cache: Cache = request.app.state.availability_cache
    key = asked.key
    kept = await cache.get(key)

    def act(session: Session) -> tuple[bytes, bytes | None]:
        with _named_as_sent():
            read = calendars.snapshot(session, asked.names, asked.window, asked.wanted)
        follows_from = key + read.mark
        if kept is not None and kept.startswith(follows_from):
            return kept[len(follows_from) :], None
        body = asked.render(read.availability(asked.wanted))
        return body, follows_from + body

    body, entry = await availability.run(act)
    if entry is not None:
        await cache.put(key, entry)
    # Bytes are sent as they are; the annotation of each handler says what they contain.
    return Response(cast(Any, body), media_type="application/json")


def _window(since: datetime | None, until: datetime | None) -> Period:
    assert since is not None and until is not None, "they are required"
    with _named_as_sent():
        return Period(since, until)


#: What the domain names otherwise.
SENT_AS = {"start": "from", "end": "to", "duration": "duration_seconds", "step": "step_seconds"}


@contextmanager
def _named_as_sent() -> Iterator[None]:
    """Let errors name what is wrong as the client has sent it."""
    try:
        yield
    except Invalid as error:
        reason = re.sub(r"\bstart\b", SENT_AS["start"], error.reason)
        raise Invalid(SENT_AS.get(error.field, error.field), reason) from error


ROUTES: Sequence[HTTPRouteHandler] = (get_availability, find_availability)
