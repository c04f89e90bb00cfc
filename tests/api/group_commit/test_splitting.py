"""A set that fails as a whole is split: who makes it fail, fails alone, and everybody is answered."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import log2

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from domain import reservations
from domain.idempotency import Answered
from domain.items import Item
from domain.reservations import Reserve
from domain.runtime.errors import DatabaseUnavailable, IdempotencyKeyReused, OutcomeUnknown
from domain.runtime.settings import Settings
from tests.api.group_commit.harness import Sets, decide
from tests.conformance.proxy import Answers
from tests.support.builders import ROUTES, Db, a_request, an_item, available
from tests.support.lossy_proxy import LossyProxy
from tests.support.waiting import wait_until, wait_until_blocked


def poisonous(item: Item) -> Reserve:
    """A request that PostgreSQL can't store. The handlers refuse it, so it stands for any fault of ours."""
    return a_request(item, note="\0")


def kinds(outcomes: Sequence[object]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


@pytest.mark.parametrize("size", [8, 64, 256])
def test_a_request_that_makes_its_set_fail_fails_alone_after_a_few_transactions(
    db: Db, settings: Settings, size: int
) -> None:
    item = an_item(db, quantity=1_000)
    requests = [a_request(item) for _ in range(size)]
    place = size // 3
    requests[place] = poisonous(item)
    sets = Sets()

    outcomes = decide(settings, sets, a_request(item), *requests)

    assert isinstance(outcomes[place], DataError)
    assert kinds(outcomes).count(Answered) == size - 1
    assert available(db, item) == 1_000 - size
    # The whole set, and then two halves for each time that it can be halved.
    assert len(sets.sizes[1:]) == 1 + 2 * log2(size)
    assert sets.sizes[1] == size


@pytest.mark.parametrize(("quantity", "expected"), [(1, Answered), (2, IdempotencyKeyReused)])
def test_a_key_that_another_transaction_stores_meanwhile_fails_nobody_else(
    db: Db, settings: Settings, quantity: int, expected: type
) -> None:
    item, other = an_item(db, quantity=100), an_item(db, quantity=100)
    racing = a_request(other, quantity, key="raced", payload_hash=f"{quantity}")
    requests = [a_request(item, key=f"key-{number}") for number in range(20)]
    requests[7] = a_request(item, 1, key="raced", payload_hash="1")
    sets = Sets()

    with ThreadPoolExecutor(1) as threads, db() as elsewhere:
        reservations.reserve(elsewhere, [racing], ROUTES)
        decided = threads.submit(decide, settings, sets, a_request(item), *requests)
        wait_until_blocked(db)
        elsewhere.commit()
        outcomes = decided.result()

    assert isinstance(outcomes[7], expected)
    assert kinds(outcomes).count(Answered) == (20 if expected is Answered else 19)
    assert available(db, item) == 100 - 1 - 19
    # The set, those that raced, and all others.
    assert sets.sizes[1:] == [20, 19, 1]


def test_trouble_with_the_database_ends_the_splitting_at_once(db: Db, settings: Settings) -> None:
    """The sets are those of the requests 0 to 7, 0 to 3, 0 and 1, 0 alone, 1 alone, 2 and 3."""
    item = an_item(db, quantity=100)

    def end_session(session: Session, number: int) -> None:
        if number >= 6:
            session.execute(select(func.pg_terminate_backend(func.pg_backend_pid())))

    sets = Sets(end_session)
    outcomes = decide(settings, sets, a_request(item), poisonous(item), *(a_request(item) for _ in range(7)))

    assert kinds(outcomes) == [DataError, Answered, *[DatabaseUnavailable] * 6]
    assert available(db, item) == 100 - 2
    # The last set is tried again once, because its connection may have been broken before.
    assert sets.sizes[1:] == [8, 4, 2, 1, 1, 2, 2]


def test_only_those_whose_commit_was_not_answered_have_an_unknown_outcome(db: Db, settings: Settings) -> None:
    item = an_item(db, quantity=100)
    proxy = LossyProxy(settings.database_url)
    proxy.lose(Answers.HANG_UP, after=2)  # those of the first request, and of the request 1
    through = settings.model_copy(update={"database_url": proxy.url})

    outcomes = decide(through, Sets(), a_request(item), poisonous(item), *(a_request(item) for _ in range(7)))
    proxy.close()

    assert kinds(outcomes) == [DataError, Answered, *[OutcomeUnknown] * 2, *[DatabaseUnavailable] * 4]
    # PostgreSQL may still be committing: nobody waits for its answer any more.
    wait_until("the set whose answer was lost is committed", lambda: available(db, item) == 100 - 2 - 2)
