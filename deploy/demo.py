"""A few items to try things on."""

from sqlalchemy.orm import Session

from domain import items
from domain.runtime import database
from domain.runtime.settings import Settings
from migrations.main import take

DEMO = {
    "ROOM-DOUBLE": ("Double room, sea view", 1_000),
    "TICKET-MATINEE": ("Matinee, stalls", 250),
    "MUG-BLUE": ("Blue mug, the last one", 1),
}


def seed() -> None:
    """Migrate the database of DATABASE_URL, and create the demo items if it has no items. A command calls it."""
    take()
    engine = database.connect(Settings.load(), connections=1)
    with database.sessions(engine).begin() as session:
        if not items.find(session, limit=1):
            _create(session)
    engine.dispose()


def _create(session: Session) -> None:
    for sku, (name, quantity) in DEMO.items():
        items.create(session, sku=sku, name=name, available_quantity=quantity)
