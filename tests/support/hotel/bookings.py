"""Real bookings of two hotels, and what a count night by night says of them. It knows nothing of the product."""

import csv
import gzip
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

#: The part of the data that the tests use.
PART = Path(__file__).with_name("bookings.csv.gz")

CANCELLED, NO_SHOW, CHECKED_OUT = "Canceled", "No-Show", "Check-Out"

#: A kind of room of a hotel.
Rooms = str

#: A night of some rooms, by its first day, or what remains of a day between two nights.
Place = tuple[Rooms, date, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A booking as it was made, and how it ended. With no nights, the guests leave on the day when they come."""

    number: int
    rooms: Rooms
    made_on: date
    arrival: date
    nights: int
    ended_on: date
    ended_as: str

    @property
    def places(self) -> Sequence[Place]:
        """What it needs one room for."""
        if self.nights == 0:
            return [(self.rooms, self.arrival, "day")]
        return [(self.rooms, self.arrival + timedelta(days=night), "night") for night in range(self.nights)]


#: Bookings that are made together, and earlier ones that have ended when they are made.
Step = tuple[Sequence[Booking], Sequence[Booking]]


def read(path: Path) -> Sequence[Booking]:
    """Return the bookings of a file in the order in which they were made."""
    with gzip.open(path, "rt", newline="") as rows:
        bookings = [_booking(number, row) for number, row in enumerate(csv.DictReader(rows))]
    return sorted(bookings, key=lambda one: one.made_on)


def _booking(number: int, row: Mapping[str, str]) -> Booking:
    day = f"{row['arrival_date_day_of_month']} {row['arrival_date_month']} {row['arrival_date_year']}"
    arrival = _date(day, "%d %B %Y")
    return Booking(
        number=number,
        rooms=f"{row['hotel']}, {row['reserved_room_type']}",
        made_on=arrival - timedelta(days=int(row["lead_time"])),
        arrival=arrival,
        nights=int(row["stays_in_weekend_nights"]) + int(row["stays_in_week_nights"]),
        ended_on=_date(row["reservation_status_date"], "%m/%d/%Y"),
        ended_as=row["reservation_status"],
    )


def _date(text: str, form: str) -> date:
    return datetime.strptime(text, form).date()  # noqa: DTZ007


def steps(bookings: Sequence[Booking], size: int) -> Iterator[Step]:
    """Yield sets of this size in order, each with the earlier bookings that end until its last day. The last are empty.

    A booking ends after the set in which it is made.
    """
    current: list[Booking] = []
    for made in (bookings[start : start + size] for start in range(0, len(bookings), size)):
        current += made
        today = made[-1].made_on
        yield made, sorted((one for one in current if one.ended_on <= today), key=lambda one: one.ended_on)
        current = [one for one in current if one.ended_on > today]
    yield (), sorted(current, key=lambda one: one.ended_on)


@dataclass(frozen=True, slots=True)
class Count:
    """The most rooms in use at once, and the numbers of the bookings that found too few free."""

    most: Mapping[Rooms, int]
    refused: Collection[int]


def count(bookings: Sequence[Booking], size: int, capacities: Mapping[Rooms, int] | None = None) -> Count:
    """Count what is in use night by night, if there are so many rooms, or as many as are needed."""
    used: Counter[Place] = Counter()
    most: Counter[Rooms] = Counter()
    refused: set[int] = set()
    for made, ended in steps(bookings, size):
        for one in made:
            if capacities and any(used[place] >= capacities[one.rooms] for place in one.places):
                refused.add(one.number)
            else:
                used.update(one.places)
                most[one.rooms] = max(most[one.rooms], *(used[place] for place in one.places))
        for one in ended:
            if one.ended_as == CANCELLED and one.number not in refused:
                used.subtract(one.places)
    return Count(most, refused)
