"""`feed:` appends each event once, in the transaction that settles its row."""

from threading import Event

import pytest
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from domain import feed
from domain.fulfilment import STEP_TYPES
from domain.outbox import Route
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.replay import replay
from domain.outbox.operations.selection import Among, Selection
from domain.runtime.errors import ConfigurationError
from tests.conftest import OpenRelay
from tests.support.broken_tables import missing
from tests.support.builders import some_settings
from tests.support.feed import feed_rows, positions
from tests.support.operations import ENTRY
from tests.support.outbox import SHOP, an_aggregate, claimed, recorded_for, rows, states, time_passes
from worker.destinations import WithEffects, open_sink
from worker.ordering.pace import Pace
from worker.relay.tally import Tally
from worker.sinks.feed import Feed


def a_feed(url: str = "feed:", **route: str) -> Feed:
    sink = open_sink(Route.model_validate({"name": SHOP, "url": url} | route), some_settings(), Pace(Event()))
    assert isinstance(sink, Feed) and isinstance(sink, WithEffects)
    return sink


@pytest.mark.parametrize("route", [{"url": "feed:main"}, {"url": "feed://host/"}, {"format": "cloudevents"}])
def test_a_route_with_more_than_the_scheme_is_refused(route: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=f"HOLDFAST_ROUTES: destination '{SHOP}'"):
        a_feed(**route)


def test_events_are_appended_and_their_rows_are_settled(relay_to: OpenRelay) -> None:
    relay = relay_to(a_feed(), batch_size=3)
    recorded_for(relay.db, *(an_aggregate(number % 4) for number in range(20)))

    assert relay.run() == Tally(tried=20, processed=20)

    assert positions(relay.db) == list(range(1, 21))
    assert {one.event_id for one in feed_rows(relay.db)} == {one.event_id for one in rows(relay.db)}


def test_an_event_that_is_replayed_is_not_in_the_feed_twice(relay_to: OpenRelay) -> None:
    relay = relay_to(a_feed())
    recorded_for(relay.db, an_aggregate(), an_aggregate())
    relay.run()
    before = feed_rows(relay.db)

    with relay.db.begin() as session:
        everything = Selection(among=Among.DELIVERED, everything=True).as_of_now(session)
        assert replay(session, Batch(selection=everything, entry=ENTRY, after=0, limit=10), STEP_TYPES).rows == 2
    assert relay.run() == Tally(tried=2, processed=2)

    assert feed_rows(relay.db) == before


def test_a_worker_that_lost_its_lease_appends_nothing(relay_to: OpenRelay) -> None:
    relay = relay_to(a_feed())
    recorded_for(relay.db, an_aggregate())
    sink = relay.destinations[SHOP]
    deliver = sink.deliver

    def freeze(batch: object) -> object:
        time_passes(relay.db)
        assert claimed(relay.db) is not None
        return deliver(batch)  # type: ignore[arg-type]

    sink.deliver = freeze  # type: ignore[assignment,method-assign]

    assert relay.run() == Tally(tried=1, fenced=1)
    assert (states(relay.db), positions(relay.db)) == (["ready"], [])


def test_events_spend_no_attempt_while_the_database_is_not_migrated(relay_to: OpenRelay) -> None:
    relay = relay_to(a_feed())
    (row,) = recorded_for(relay.db, an_aggregate())

    with missing(relay.db, "feed_events", "event_id"), pytest.raises(ProgrammingError):
        relay.run()

    assert (states(relay.db, row), rows(relay.db)[0].attempts) == (["ready"], 0)
    time_passes(relay.db)
    assert relay.run() == Tally(tried=1, processed=1)


def test_rows_and_events_are_written_together_or_not_at_all(
    relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = relay_to(a_feed())
    first, second = recorded_for(relay.db, an_aggregate(), an_aggregate())

    def break_at_the_second(session: Session, row_ids: list[int]) -> int:
        appended = append(session, row_ids)
        if second in row_ids:
            raise RuntimeError("unforeseen")
        return appended

    append = feed.append
    monkeypatch.setattr(feed, "append", break_at_the_second)

    relay.run()

    assert states(relay.db, first, second) == ["processed", "waiting"]
    assert positions(relay.db) == [1]
    monkeypatch.undo()
    time_passes(relay.db)
    relay.run()
    assert (states(relay.db), positions(relay.db)) == (["processed"] * 2, [1, 2])
