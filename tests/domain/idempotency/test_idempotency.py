"""Idempotency: the same request twice has one effect and one answer, and duplicates wait for each other."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from domain.idempotency import KEPT_FOR, PRUNE_BATCH, Answer, Answered, Key, requests
from domain import idempotency
from domain.runtime.errors import IdempotencyKeyReused, Refusal, SoldOut
from tests.support.builders import Db
from tests.support.serving import wait_until_blocked

KEY = Key("client", "reservations.cancel", "k")


def once(session: Session, act: Callable[[], str | Refusal], key: Key | None = KEY, payload: str = "p") -> object:
    """Do something once under a key; its answer is what it returns."""
    return idempotency.once(session, key, payload, act, lambda answer: answer)


def done(db: Db, act: Callable[[], str | Refusal], key: Key | None = KEY, payload: str = "p") -> object:
    with db.begin() as session:
        return once(session, act, key, payload)


def never() -> str:
    raise AssertionError("this must not be done again")


def kept(db: Db) -> int:
    with db.begin() as session:
        return session.execute(select(func.count()).select_from(requests)).scalar_one()


def stored(db: Db, *keys: Key) -> int:
    with db.begin() as session:
        return idempotency.store(session, [(key, Answer("p", "a"), None) for key in keys])


def test_the_second_time_gets_the_answer_of_the_first(db: Db) -> None:
    assert done(db, lambda: "first") == Answered("first")
    assert done(db, never) == Answered("first", replayed=True)


def test_without_a_key_everything_is_done_each_time(db: Db) -> None:
    assert [done(db, lambda: "a", key=None), done(db, lambda: "b", key=None)] == [Answered("a"), Answered("b")]
    assert isinstance(done(db, lambda: SoldOut("sku", 1, 0), key=None), SoldOut)
    assert kept(db) == 0


def test_a_key_with_another_payload_is_refused(db: Db) -> None:
    done(db, lambda: "first")

    outcome = done(db, never, payload="other")

    assert isinstance(outcome, IdempotencyKeyReused) and outcome.key == "k"


@pytest.mark.parametrize("other", [Key("client", "items.create", "k"), Key("stranger", KEY.operation, "k")])
def test_a_key_belongs_to_a_client_and_an_operation(db: Db, other: Key) -> None:
    done(db, lambda: "first")

    assert done(db, lambda: "second", key=other) == Answered("second")


def test_a_refusal_is_not_kept_so_the_key_may_try_again(db: Db) -> None:
    assert isinstance(done(db, lambda: SoldOut("sku", 1, 0)), SoldOut)

    assert kept(db) == 0
    assert done(db, lambda: "now it works") == Answered("now it works")


def test_a_key_goes_with_the_effect_that_was_rolled_back(db: Db) -> None:
    with db() as session:
        once(session, lambda: "never committed")
        session.rollback()

    assert done(db, lambda: "first") == Answered("first")


def test_an_act_that_breaks_leaves_no_mark(db: Db) -> None:
    with pytest.raises(AssertionError):
        done(db, never)

    assert done(db, lambda: "first") == Answered("first")


def while_a_twin_is_in_flight(db: Db, first: Callable[[], str | Refusal], *, commits: bool) -> object:
    """Do something under the key while a duplicate waits for it. Return the duplicate's answer."""
    with ThreadPoolExecutor(1) as elsewhere, db() as session:
        once(session, first)
        duplicate: Future[object] = elsewhere.submit(done, db, lambda: "duplicate")
        wait_until_blocked(db)
        session.commit() if commits else session.rollback()
        return duplicate.result()


def test_a_twin_in_flight_is_waited_for_and_its_answer_shared(db: Db) -> None:
    assert while_a_twin_is_in_flight(db, lambda: "first", commits=True) == Answered("first", replayed=True)


def test_a_twin_whose_other_half_rolled_back_acts_itself(db: Db) -> None:
    assert while_a_twin_is_in_flight(db, lambda: "first", commits=False) == Answered("duplicate")


def test_a_twin_whose_other_half_was_refused_acts_itself(db: Db) -> None:
    def refused() -> Refusal:
        return SoldOut("sku", 1, 0)

    assert while_a_twin_is_in_flight(db, refused, commits=True) == Answered("duplicate")


def test_many_twins_at_once_have_one_effect(db: Db) -> None:
    effects: list[int] = []

    def act() -> str:
        effects.append(1)
        return "done"

    with ThreadPoolExecutor(16) as elsewhere:
        answers = list(elsewhere.map(lambda _: done(db, act), range(64)))

    assert len(effects) == 1
    assert answers.count(Answered("done")) == 1
    assert answers.count(Answered("done", replayed=True)) == 63


def test_lookup_finds_what_was_answered_and_nothing_else(db: Db) -> None:
    other = Key("client", KEY.operation, "other")
    stored(db, KEY, Key("stranger", KEY.operation, "k"), Key("client", "items.create", "k"))

    with db.begin() as session:
        assert idempotency.lookup(session, []) == {}
        assert idempotency.lookup(session, [KEY, other]) == {KEY: Answer("p", "a")}


def test_storing_says_how_many_keys_were_new(db: Db) -> None:
    others = [Key("client", KEY.operation, name) for name in "zxy"]

    assert stored(db) == 0
    assert stored(db, KEY) == 1
    assert stored(db, *others, KEY) == 3


def test_stores_in_opposite_orders_do_not_deadlock(db: Db) -> None:
    a, b = (Key("client", KEY.operation, name) for name in "ab")
    with ThreadPoolExecutor(1) as elsewhere, db.begin() as session:
        idempotency.store(session, [(a, Answer("p", "a"), None)])
        backwards = elsewhere.submit(stored, db, b, a)
        wait_until_blocked(db)
        assert idempotency.store(session, [(b, Answer("p", "a"), None)]) == 1
        session.commit()

        assert backwards.result() == 0


def test_awkward_keys_come_back_as_they_are(db: Db) -> None:
    keys = [Key("c" * 255, "o" * 50, "k" * 255), Key("client", "op", 'ü"\\,{}'), Key("client", "op", "NULL")]

    assert stored(db, *keys) == 3
    with db.begin() as session:
        assert set(idempotency.lookup(session, keys)) == set(keys)


def grow_old(db: Db, by: timedelta) -> None:
    with db.begin() as session:
        session.execute(update(requests).values(created_at=requests.c.created_at - by))


def pruned(db: Db) -> int:
    with db.begin() as session:
        return idempotency.prune(session)


def test_a_key_is_kept_for_a_day(db: Db) -> None:
    stored(db, KEY)
    grow_old(db, KEPT_FOR - timedelta(minutes=1))

    assert (pruned(db), kept(db)) == (0, 1)
    grow_old(db, timedelta(minutes=2))
    assert (pruned(db), kept(db)) == (1, 0)
    assert done(db, lambda: "anew") == Answered("anew")


def test_pruning_goes_in_bounded_bites_and_leaves_what_is_in_use(db: Db) -> None:
    stored(db, *(Key("client", "op", str(number)) for number in range(PRUNE_BATCH + 5)))
    grow_old(db, 2 * KEPT_FOR)
    busy = select(requests).where(requests.c.idempotency_key.in_(["1", "2"])).with_for_update()

    with db.begin() as holder:
        holder.execute(busy)
        assert [pruned(db), pruned(db), pruned(db)] == [PRUNE_BATCH, 3, 0]
    assert pruned(db) == 2
