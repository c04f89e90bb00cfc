"""The plan of the statement that locks items: it reads the items that it locks, and no other."""

from sqlalchemy import text

from domain import items
from domain.runtime.database import connect, sessions
from domain.runtime.settings import Settings
from tests.domain.outbox.test_plans import DESCENT, executed
from tests.support.builders import Db

FILL = text("""
    INSERT INTO items (sku, name, available_quantity, stock_quantity)
    SELECT 'SKU-' || n, 'Thing', 1, 1 FROM generate_series(1, 5000) AS n
""")


def test_locking_two_items_in_order_reads_no_others(db: Db, settings: Settings) -> None:
    with db.begin() as session:
        session.execute(FILL)
        session.execute(text("ANALYZE items"))
    writer = connect(settings, connections=1, by_index=True)

    plan = executed(sessions(writer), lambda session: items.lock(session, [7, 4_000]))

    assert plan.pages <= 4 * DESCENT
    writer.dispose()
