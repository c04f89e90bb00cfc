"""Real bookings of two hotels, replayed on calendars as an import does."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import rich_click as click
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.environment import Environment
from benchmarks.measure import Measure
from domain import invariants, outbox
from domain.fulfilment import load_routes
from domain.runtime import database
from domain.runtime.settings import ROOT, Settings
from tests.support.hotel.bookings import Booking, count, read, steps
from tests.support.hotel.replay import SET_SIZE, Replay

#: Where the whole file is, if nobody says otherwise.
BOOKINGS = ROOT.parent / "shared" / "data" / "hotel_bookings.csv.gz"


class MissingBookings(click.ClickException):
    """Raised when the file with the bookings is not there."""

    exit_code = 2


def require_bookings(path: Path) -> None:
    """Raises MissingBookings if there is no file."""
    if not path.is_file():
        raise MissingBookings(
            f"The benchmark `hotel` replays real bookings, and {path} was not found."
            " tests/support/hotel/README.md says whose data they are; name the file with --hotel-bookings FILE."
        )


def hotel(environment: Environment, path: Path = BOOKINGS) -> Iterator[Measure]:
    """Real bookings of two hotels, replayed in sets of 256: with as many rooms as they needed, and with one less."""
    bookings = read(path)
    needed = count(bookings, SET_SIZE).most
    settings = Settings.load()
    # As the writer of the API connects: by the statistics of empty tables, PostgreSQL would read whole ones.
    engine = database.connect(settings, connections=1, by_index=True)
    db, routes = database.sessions(engine), load_routes(settings)
    yield from _replay(environment, Replay(db, routes, needed), bookings, "as many rooms as they needed")
    fewer = {rooms: max(1, most - 1) for rooms, most in needed.items()}
    yield from _replay(environment, Replay(db, routes, fewer), bookings, "one room less of each kind")
    engine.dispose()


def _replay(environment: Environment, replay: Replay, bookings: Sequence[Booking], rooms: str) -> Iterator[Measure]:
    environment.clear()
    with replay.db.begin() as session:
        outbox.register(session, replay.routes.names)
    replay.open()
    reserving, ending = _run(replay, bookings)
    yield _rate(f"real bookings decided/s, {rooms}", len(bookings), reserving)
    yield _rate(f"real bookings ended/s, {rooms}", len(replay.made), ending)
    expected = count(bookings, SET_SIZE, replay.capacities).refused
    yield _agreement(f"real bookings refused, {rooms}", replay.refused == expected, len(replay.refused), len(expected))
    with environment.connect() as connection:
        # What autovacuum would do within a minute.
        connection.execute("ANALYZE")
    yield _healthy(replay.db, rooms)


def _run(replay: Replay, bookings: Sequence[Booking]) -> tuple[float, float]:
    """Make all bookings and end them. Return how many seconds each of the two took."""
    reserving = ending = 0.0
    for made, ended in steps(bookings, SET_SIZE):
        begun = time.monotonic()
        replay.reserve(made)
        between = time.monotonic()
        replay.end([one for one in ended if one.number in replay.made])
        reserving, ending = reserving + between - begun, ending + time.monotonic() - between
    return reserving, ending


def _rate(what: str, number: int, seconds: float) -> Measure:
    rate = number / seconds
    return Measure(what=what, measured=f"{rate:,.0f}", numbers={"measured": rate})


def _agreement(what: str, agrees: bool, refused: int, expected: int) -> Measure:
    return Measure(
        what=what,
        measured=f"{refused:,}",
        baseline=f"counted night by night {expected:,}",
        budget="the same bookings",
        met=agrees,
        numbers={"measured": refused, "baseline": expected},
    )


def _healthy(db: sessionmaker[Session], rooms: str) -> Measure:
    with db.begin() as session:
        violated = [one.title for one in invariants.examine(session) if one.violations]
    return Measure(
        what=f"invariants violated after that, {rooms}",
        measured=", ".join(violated) or "none",
        budget="none",
        met=not violated,
        numbers={"measured": len(violated)},
    )
