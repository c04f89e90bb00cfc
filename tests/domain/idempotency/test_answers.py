"""Idempotency keys: the same request twice has one effect and one answer, and a duplicate waits for the first."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session

from domain import idempotency
from domain.idempotency import Answered, Key, StoredAnswer
from domain.runtime.errors import IdempotencyKeyReused, Refusal, SoldOut
from tests.domain.idempotency.conftest import KEY, key_count, store, stored
from tests.support.builders import Db
from tests.support.waiting import wait_until_blocked


def once(session: Session, act: Callable[[], str | Refusal], key: Key | None = KEY, payload: str = "p") -> object:
    """Act once under a key. What `act` returns is the answer."""
    return idempotency.once(session, key, payload, lambda _: act(), lambda answer: answer)


def done(db: Db, act: Callable[[], str | Refusal], key: Key | None = KEY, payload: str = "p") -> object:
    with db.begin() as session:
        return once(session, act, key, payload)


def never() -> str:
    raise AssertionError("this must not be done again")


def test_the_second_request_gets_the_answer_of_the_first(db: Db) -> None:
    assert done(db, lambda: "first") == Answered("first")
    assert done(db, never) == Answered("first", replayed=True)


def test_requests_without_a_key_are_each_executed(db: Db) -> None:
    assert [done(db, lambda: "a", key=None), done(db, lambda: "b", key=None)] == [Answered("a"), Answered("b")]
    assert isinstance(done(db, lambda: SoldOut("sku", 1, 0), key=None), SoldOut)
    assert key_count(db) == 0


def test_a_key_with_another_payload_is_refused(db: Db) -> None:
    done(db, lambda: "first")

    outcome = done(db, never, payload="other")

    assert isinstance(outcome, IdempotencyKeyReused) and outcome.key == "k"


@pytest.mark.parametrize("other", [Key("client", "items.create", "k"), Key("stranger", KEY.operation, "k")])
def test_a_key_belongs_to_a_client_and_an_operation(db: Db, other: Key) -> None:
    done(db, lambda: "first")

    assert done(db, lambda: "second", key=other) == Answered("second")


def test_a_refusal_is_not_stored_so_the_key_may_try_again(db: Db) -> None:
    assert isinstance(done(db, lambda: SoldOut("sku", 1, 0)), SoldOut)

    assert key_count(db) == 0
    assert done(db, lambda: "now it works") == Answered("now it works")


def test_a_key_is_rolled_back_together_with_its_effect(db: Db) -> None:
    with db() as session:
        once(session, lambda: "never committed")
        session.rollback()

    assert done(db, lambda: "first") == Answered("first")


def test_an_effect_that_raises_stores_no_key(db: Db) -> None:
    with pytest.raises(AssertionError):
        done(db, never)

    assert done(db, lambda: "first") == Answered("first")


def answer_of_a_duplicate(db: Db, first: Callable[[], str | Refusal], *, commits: bool) -> object:
    """Act under the key while a duplicate waits, and commit or roll back. Return the answer of the duplicate."""
    with ThreadPoolExecutor(1) as elsewhere, db() as session:
        once(session, first)
        duplicate: Future[object] = elsewhere.submit(done, db, lambda: "duplicate")
        wait_until_blocked(db)
        session.commit() if commits else session.rollback()
        return duplicate.result()


def test_a_duplicate_waits_for_the_first_request_and_shares_its_answer(db: Db) -> None:
    assert answer_of_a_duplicate(db, lambda: "first", commits=True) == Answered("first", replayed=True)


def test_a_duplicate_of_a_request_that_rolled_back_acts_itself(db: Db) -> None:
    assert answer_of_a_duplicate(db, lambda: "first", commits=False) == Answered("duplicate")


def test_a_duplicate_of_a_request_that_was_refused_acts_itself(db: Db) -> None:
    def refused() -> Refusal:
        return SoldOut("sku", 1, 0)

    assert answer_of_a_duplicate(db, refused, commits=True) == Answered("duplicate")


def test_many_duplicates_at_the_same_time_have_one_effect(db: Db) -> None:
    effects: list[int] = []

    def act() -> str:
        effects.append(1)
        return "done"

    with ThreadPoolExecutor(16) as elsewhere:
        answers = list(elsewhere.map(lambda _: done(db, act), range(64)))

    assert len(effects) == 1
    assert answers.count(Answered("done")) == 1
    assert answers.count(Answered("done", replayed=True)) == 63


def test_lookup_finds_the_answers_under_the_given_keys_and_no_others(db: Db) -> None:
    other = Key("client", KEY.operation, "other")
    stored(db, KEY, Key("stranger", KEY.operation, "k"), Key("client", "items.create", "k"))

    with db.begin() as session:
        assert idempotency.lookup(session, []) == {}
        assert idempotency.lookup(session, [KEY, other]) == {KEY: StoredAnswer("p", "a")}


def test_storing_returns_how_many_keys_were_new(db: Db) -> None:
    others = [Key("client", KEY.operation, name) for name in "zxy"]

    assert stored(db) == 0
    assert stored(db, KEY) == 1
    assert stored(db, *others, KEY) == 3


def test_storing_the_same_keys_in_opposite_orders_does_not_deadlock(db: Db) -> None:
    a, b = (Key("client", KEY.operation, name) for name in "ab")
    with ThreadPoolExecutor(1) as elsewhere, db.begin() as session:
        store(session, a)
        backwards = elsewhere.submit(stored, db, b, a)
        wait_until_blocked(db)
        assert store(session, b) == {b}
        session.commit()

        assert backwards.result() == 0


def test_keys_with_unusual_characters_and_lengths_are_found_again(db: Db) -> None:
    keys = [Key("c" * 255, "o" * 50, "k" * 255), Key("client", "op", 'ü"\\,{}'), Key("client", "op", "NULL")]

    assert stored(db, *keys) == 3
    with db.begin() as session:
        assert set(idempotency.lookup(session, keys)) == set(keys)
