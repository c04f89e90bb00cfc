"""Streams of the feed: each event once and in order, however the reader comes and goes."""

import httpx

from tests.support.builders import Db
from tests.support.feed import appended
from tests.support.outbox import an_aggregate
from tests.support.sse import STREAM, streaming


def test_a_stream_has_the_events_of_the_pages_and_then_those_that_come(api: httpx.Client, db: Db) -> None:
    appended(db, 3)
    shown = api.get("/events").json()["events"]

    with streaming(api) as stream:
        first = stream.take(3)
        appended(db, 2, event_type="booking.confirmed")
        later = stream.take(2)

    assert [one.data for one in first] == shown
    assert [(one.id, one.event) for one in first] == [(str(n), "booking.created") for n in (1, 2, 3)]
    assert [(one.id, one.event) for one in later] == [(str(n), "booking.confirmed") for n in (4, 5)]
    assert stream.retry and 1_000 <= stream.retry <= 3_000


def test_a_stream_continues_after_the_last_event_that_its_reader_has_seen(api: httpx.Client, db: Db) -> None:
    appended(db, 5)

    with streaming(api, "/events?after=0", **{"Last-Event-ID": "3"}) as stream:
        assert [one.id for one in stream.take(2)] == ["4", "5"]


def test_a_stream_that_begins_now_has_what_comes_and_nothing_else(api: httpx.Client, db: Db) -> None:
    appended(db, 3)

    with streaming(api, "/events?after=newest") as stream:
        appended(db)
        assert [one.id for one in stream.take(1)] == ["4"]


def test_a_filter_holds_for_what_comes_as_well(api: httpx.Client, db: Db) -> None:
    aggregate = an_aggregate()
    appended(db, 2)
    appended(db, aggregate=aggregate)

    with streaming(api, f"/events?reservation={aggregate}&type=booking.*ed") as stream:
        first = stream.take(1)
        appended(db, 5)
        appended(db, aggregate=aggregate, event_type="booking.no_show")
        appended(db, aggregate=aggregate, event_type="booking.confirmed")
        later = stream.take(1)

    assert [(one.id, one.event) for one in (*first, *later)] == [("3", "booking.created"), ("10", "booking.confirmed")]


def test_head_is_answered_without_a_stream(api: httpx.Client, db: Db) -> None:
    appended(db)

    answer = api.head("/events", headers=STREAM)

    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "text/event-stream", b"")


def test_a_client_that_prefers_json_gets_a_page(api: httpx.Client, db: Db) -> None:
    for accept in ("*/*", "application/json, text/event-stream;q=0.5", "text/html", "application/*"):
        assert api.get("/events", headers={"Accept": accept}).json()["events"] == []
