"""The plan of the statement that locks items: it reads the items that it locks, and no other."""

from collections.abc import Sequence

import pytest
from sqlalchemy import text

from domain import items
from domain.runtime.database import connect, sessions
from domain.runtime.settings import Settings
from tests.domain.outbox.test_plans import DESCENT, executed
from tests.support.builders import Db

FILL = text("""
    INSERT INTO items (id, sku, name, available_quantity, stock_quantity, venue)
    OVERRIDING SYSTEM VALUE
    SELECT n, 'SKU-' || n, 'Thing', 1, 1, CAST(:venue AS text) FROM generate_series(1, 5000) AS n
""")


@pytest.mark.parametrize("names", [[7, 4_000], ["SKU-7", "SKU-4000"]])
def test_locking_two_items_in_order_reads_no_others(db: Db, settings: Settings, names: Sequence[int | str]) -> None:
    """Even if another index is full of items that there are no more, and is taken for empty."""
    with db.begin() as session:
        session.execute(FILL, {"venue": "hotel"})
        session.execute(text("DELETE FROM items"))
        session.execute(FILL, {"venue": None})
        session.execute(text("ANALYZE items"))
    writer = connect(settings, connections=1, by_index=True)

    plan = executed(sessions(writer), lambda session: items.lock(session, names))

    writer.dispose()
    assert plan.indexes == {"pk_items", "uq_items_sku"}
    assert plan.pages <= 4 * DESCENT
