"""Who waits keeps nobody else waiting: requests for a locked item, and imports."""

import asyncio

import pytest

from domain import items
from domain.idempotency import Answered
from domain.runtime.errors import Busy
from domain.runtime.settings import Settings
from tests.api.group_commit import harness
from tests.api.group_commit.harness import Sets, a_group_commit
from tests.support.builders import Db, a_basket, a_request, an_item, available
from tests.support.waiting import wait_until, wait_until_blocked


def test_who_waits_for_the_locked_item_of_a_basket_keeps_nobody_from_its_other_items(
    db: Db, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items that are waited for together are locked in order of id, so the first would be locked all the time."""
    monkeypatch.setattr("api.group_commit.writers.LOCK_MILLISECONDS", 60_000)
    monkeypatch.setattr(harness, "COMMIT_SECONDS", 60.0)
    free, locked = an_item(db, quantity=100), an_item(db, quantity=100)
    sets = Sets()
    sets.gate.set()

    async def reserve() -> list[Answered]:
        async with a_group_commit(settings, sets) as commits:
            with db.begin() as elsewhere:
                items.lock(elsewhere, [locked.id])
                basket = commits.submit(a_basket((free, 1), (locked, 1)))
                await asyncio.to_thread(wait_until_blocked, db)
                others = [await commits.submit(a_request(free)) for _ in range(5)]
                assert not basket.done()
            return [*others, await basket]

    assert [type(outcome) for outcome in asyncio.run(reserve())] == [Answered] * 6
    assert (available(db, free), available(db, locked)) == (94, 99)


def test_an_import_takes_no_place_from_others_and_has_more_time(
    settings: Settings, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one place of each kind, and a writer that is busy."""
    monkeypatch.setattr("api.group_commit.QUEUE_SECONDS", 0.2)
    item, sets = an_item(db, quantity=10), Sets()

    async def reserve() -> None:
        async with a_group_commit(settings, sets, queue_limit=1) as commits:
            deciding = commits.submit(a_request(item))
            await asyncio.to_thread(wait_until, "the first set is decided", lambda: sets.sizes)
            imported, refused, urgent, busy = (
                commits.submit(a_request(item), is_background=is_background)
                for is_background in (True, True, False, False)
            )
            assert isinstance(refused.exception(), Busy) and isinstance(busy.exception(), Busy)
            with pytest.raises(Busy):  # after QUEUE_SECONDS
                await urgent
            assert not imported.done()
            sets.gate.set()
            assert isinstance(await imported, Answered) and isinstance(await deciding, Answered)

    asyncio.run(reserve())
