"""The settings of calendars: creating a calendar, changing it, and refusing what lies outside its opening hours."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from domain import items
from domain.calendars import occupancies
from domain.calendars.capacity import Timeline
from domain.calendars.exclusivity import make_exclusive
from domain.calendars.opening_hours import OpeningHours, parse
from domain.calendars.periods import Period
from domain.calendars.rules import is_open, zone
from domain.calendars.zones import zone_of
from domain.items import Item, Kind
from domain.runtime.errors import CapacityInUse, Invalid, OutsideOpeningHours

#: A day: a longer buffer is a mistyped unit.
MAX_BUFFER_SECONDS = 24 * 60 * 60


class Settings(NamedTuple):
    """What a calendar is created with. Buffers are in whole seconds; without opening hours it is always open."""

    capacity: int
    time_zone: str
    buffer_before_seconds: int = 0
    buffer_after_seconds: int = 0
    opening_hours: Mapping[str, Any] | None = None


def create(
    session: Session,
    *,
    sku: str,
    name: str,
    settings: Settings,
    venue: str | None = None,
    provider: str | None = None,
    **price: object,
) -> Item:
    """Create a calendar, with these columns of a list price. Raises SkuTaken, Invalid."""
    columns = _columns(settings._asdict()) | price
    return items.create(session, sku=sku, name=name, venue=venue, provider=provider, kind=Kind.CALENDAR, **columns)


def amend(
    session: Session, reference: int | str, precondition: Callable[[Item], None] | None = None, **changes: Any
) -> Item:
    """Change the name, the owners or the settings of a calendar. Raises UnknownItem, Invalid, CapacityInUse.

    The reservations that it has keep their time, even outside new opening hours, and the buffers that they were made
    with. If the capacity becomes 1, the time that they take from now on becomes exclusive.
    """
    name = changes.pop("name", None)
    columns = _columns(changes)

    def require(item: Item) -> None:
        if precondition is not None:
            precondition(item)
        if item.kind != Kind.CALENDAR:
            raise Invalid(
                next(name for name in Settings._fields if name in changes),
                f"{item.sku} is stock, and only calendars have it",
            )
        if "capacity" in columns:
            _require_enough(session, item, columns["capacity"])

    item = items.amend(session, reference, name=name, precondition=require, **columns)
    if columns.get("capacity") == 1:
        make_exclusive(session, item.id)
    return item


def _columns(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of these settings. Raises Invalid."""
    columns = dict(settings)
    if "time_zone" in columns:
        zone_of(columns["time_zone"])
    if columns.get("opening_hours") is not None:
        columns["opening_hours"] = OpeningHours.of(columns["opening_hours"]).text
    return columns


def _require_enough(session: Session, item: Item, capacity: int) -> None:
    taken = occupancies.from_now_on(session, item.id)
    in_use = (
        Timeline(taken).greatest_use(min(one.start for one in taken), max(one.end for one in taken)) if taken else 0
    )
    if in_use > capacity:
        raise CapacityInUse(item.sku, capacity, in_use)


def refuse_outside(item: Item, period: Period) -> OutsideOpeningHours | None:
    """Refuse a period in which a calendar is not open throughout."""
    if is_open(item, period):
        return None
    assert item.time_zone is not None and item.opening_hours is not None, "it is closed at times"
    return OutsideOpeningHours(item.sku, item.time_zone, parse(item.opening_hours).by_date(period, zone(item)))
