"""Refusals are answered whether or not they can be explained."""

import asyncio

import pytest
from sqlalchemy import text

from api.bulkheads import Bulkhead, Limits
from api.explanations import explained
from domain.access import ANONYMOUS
from domain.runtime.errors import NotFree
from domain.runtime.settings import Settings
from tests.support.builders import Db, a_calendar, a_time_hold, hours


async def refuse(refused: NotFree) -> None:
    raise refused


@pytest.mark.parametrize("limits", [Limits(threads=1, lock_milliseconds=50), Limits(threads=1, statement_seconds=1)])
def test_a_refusal_that_the_database_does_not_explain_in_time_is_answered_without(
    db: Db, settings: Settings, limits: Limits
) -> None:
    wanted = hours(10, 12)
    room = a_calendar(db)
    a_time_hold(db, room, wanted)

    async def ask() -> NotFree:
        bulkhead = Bulkhead("explanations", settings, limits, committed=lambda: None)
        try:
            with pytest.raises(NotFree) as raised:
                await explained(refuse(NotFree(room.sku, 1, 0, wanted.start, wanted.end)), bulkhead, ANONYMOUS)
        finally:
            bulkhead.close()
        return raised.value

    with db.begin() as session:
        session.execute(text("LOCK TABLE calendar_occupancies"))
        unexplained = asyncio.run(ask())

    assert (unexplained.conflicts, unexplained.alternatives) == (None, None)
    assert len(asyncio.run(ask()).conflicts or ()) == 1
