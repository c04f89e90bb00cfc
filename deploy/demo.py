"""A few items to try things on: stock, a hotel, a restaurant and a meeting room."""

from sqlalchemy.orm import Session

from domain import calendars, items
from domain.access.audit import AuditEntry
from domain.calendars import Settings
from domain.fulfilment import load_routes
from domain.outbox.operations import routes_in_force
from domain.runtime import database
from domain.runtime.identity import user_at_host
from domain.runtime.settings import Settings as Process
from migrations.main import take

#: What an error of the database means for `bin/up`.
NOTHING_STARTED = "Nothing was started."

#: The venue to which the items belong whose skus begin with this.
VENUES = {"SEAVIEW": "seaview", "ROOM": "seaview", "TRATTORIA": "trattoria"}

DEMO = {
    "ROOM-DOUBLE": ("Double room, sea view", 1_000),
    "TICKET-MATINEE": ("Matinee, stalls", 250),
    "MUG-BLUE": ("Blue mug, the last one", 1),
}

#: The hotel cleans a room for two hours after each guest. What is reserved of the restaurant are covers.
CALENDARS = {
    "SEAVIEW-SUITE": ("Suite of the hotel Seaview", Settings(1, "Europe/Lisbon", 0, 7_200)),
    "SEAVIEW-DOUBLE": ("Double rooms of the hotel Seaview", Settings(10, "Europe/Lisbon", 0, 7_200)),
    "SEAVIEW-PARKING": ("Parking lots of the hotel Seaview", Settings(20, "Europe/Lisbon")),
    "TRATTORIA": (
        "Covers of the restaurant Trattoria",
        Settings(
            40,
            "Europe/Rome",
            opening_hours={day: ["12:00-15:00", "19:00-24:00"] for day in ("tue", "wed", "thu", "fri", "sat")},
        ),
    ),
    "MEETING-ROOM": (
        "Meeting room for ten",
        Settings(
            1,
            "Europe/Berlin",
            buffer_after_seconds=900,
            opening_hours={day: ["08:00-20:00"] for day in ("mon", "tue", "wed", "thu", "fri")},
        ),
    ),
}


def seed(*, use_routes: bool) -> None:
    """Migrate the database of DATABASE_URL, and create the demo items if it has no items. A command calls it.

    With `use_routes`, the routes of this environment are put in force: it starts all processes of the database.
    """
    take(consequence=NOTHING_STARTED)
    settings = Process.load()
    engine = database.connect(settings, connections=1)
    with database.sessions(engine).begin() as session:
        if not items.find(session, limit=1):
            _create(session)
        if use_routes:
            entry = AuditEntry(who=user_at_host(), why="bin/up was started with these routes")
            routes_in_force.use(session, load_routes(settings), entry)
    engine.dispose()


def _create(session: Session) -> None:
    for sku, (name, quantity) in DEMO.items():
        items.create(session, sku=sku, name=name, available_quantity=quantity, venue=_venue(sku))
    for sku, (name, settings) in CALENDARS.items():
        calendars.create(session, sku=sku, name=name, settings=settings, venue=_venue(sku))


def _venue(sku: str) -> str | None:
    return VENUES.get(sku.partition("-")[0])
