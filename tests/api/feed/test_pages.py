"""Pages of the feed over HTTP: one after the other they have each event once, and nothing is skipped silently."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.runtime.settings import Settings
from tests.domain.feed.test_prune import pruned
from tests.support.api_process import Served, serving
from tests.support.builders import Db
from tests.support.feed import appended, grown_old, positions
from tests.support.outbox import an_aggregate, rows

JSON = {"Accept": "application/json"}


def page(api: httpx.Client, **parameters: Any) -> Any:
    return api.get("/events", params=parameters, headers=JSON).raise_for_status().json()


def test_an_event_has_what_was_recorded(api: httpx.Client, db: Db) -> None:
    appended(db)

    answer = api.get("/events")

    (recorded,) = rows(db)
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("Accept", "no-store")
    assert answer.json() == {
        "events": [
            {
                "position": 1,
                "event_id": str(recorded.event_id),
                "type": "booking.created",
                "reservation_id": str(recorded.aggregate_id),
                "created_at": recorded.created_at.isoformat().replace("+00:00", "Z"),
                "payload": recorded.payload,
            }
        ],
        "next_after": 1,
        "newest": 1,
    }


def test_pages_follow_each_other_by_next_after(api: httpx.Client, db: Db) -> None:
    appended(db, 7)
    seen: list[int] = []
    after = 0

    while (one := page(api, after=after, limit=3))["events"]:
        seen += [event["position"] for event in one["events"]]
        after = one["next_after"]

    assert seen == positions(db)
    assert one == {"events": [], "next_after": 7, "newest": 7}


def test_filters_select_types_and_a_reservation(api: httpx.Client, db: Db) -> None:
    aggregate = an_aggregate()
    appended(db)
    appended(db, aggregate=aggregate)
    appended(db, aggregate=aggregate, event_type="booking.confirmed")

    def found(**parameters: Any) -> list[int]:
        return [event["position"] for event in page(api, **parameters)["events"]]

    assert found() == [1, 2, 3]
    assert found(type="booking.created") == [1, 2]
    assert found(type="booking.*") == [1, 2, 3]
    assert found(reservation=str(aggregate)) == [2, 3]
    assert found(reservation=str(aggregate), type="*.confirmed") == [3]
    assert found(after="newest") == []
    assert page(api, type="booking.confirmed", after=0)["next_after"] == 3


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"after": "-1"}, "after"),
        ({"after": "1.0"}, "after"),
        ({"after": "oldest"}, "after"),
        ({"after": "9" * 19}, "after"),
        ({"type": "booking"}, "type"),
        ({"type": "booking.?*"}, "type"),
        ({"type": ""}, "type"),
        ({"reservation": "x' OR '1'='1"}, "reservation"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"cursor": "1"}, "cursor"),
    ],
)
def test_what_can_not_be_read_is_refused(api: httpx.Client, parameters: dict[str, str], field: str) -> None:
    refused = api.get("/events", params=parameters)

    assert (refused.status_code, refused.json()["field"]) == (400, field)


@pytest.mark.parametrize("sent", ["", "x", "-1", "1 2", "9" * 19, "newest"])
def test_a_last_event_id_that_is_none_is_refused(api: httpx.Client, sent: str) -> None:
    refused = api.get("/events", headers={"Last-Event-ID": sent} | JSON)

    assert (refused.status_code, refused.json()["field"]) == (400, "Last-Event-ID")


def test_the_last_event_id_counts_for_more_than_the_address(api: httpx.Client, db: Db) -> None:
    appended(db, 5)

    answer = api.get("/events", params={"after": 1}, headers={"Last-Event-ID": "3"} | JSON)

    assert [event["position"] for event in answer.json()["events"]] == [4, 5]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_whoever_has_missed_events_that_were_pruned_is_refused(api: httpx.Client, db: Db, accept: str) -> None:
    appended(db, 5)
    grown_old(db, up_to=3)
    pruned(db)

    refused = api.get("/events", params={"after": 2}, headers={"Accept": accept})

    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (410, "/problems/position-gone")
    assert (problem["after"], problem["oldest"], problem["field"]) == (2, 4, "after")
    assert [event["position"] for event in page(api)["events"]] == [4, 5]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_whoever_is_ahead_of_a_feed_that_was_made_anew_is_refused(api: httpx.Client, db: Db, accept: str) -> None:
    appended(db, 5)

    refused = api.get("/events", headers={"Accept": accept, "Last-Event-ID": "6"})

    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (410, "/problems/position-gone")
    assert (problem["after"], problem["oldest"]) == (6, 1)


@pytest.fixture
def without_feed(settings: Settings, tmp_path: Path) -> Iterator[Served]:
    routes = tmp_path / "routes.toml"
    routes.write_text('[[destination]]\nname = "log"\nurl = "log:"\n')
    with serving(HOLDFAST_ROUTES=str(routes)) as served:
        yield served


@pytest.mark.slow
def test_without_a_feed_the_answer_says_what_to_do(without_feed: Served) -> None:
    for accept in ("application/json", "text/event-stream"):
        refused = without_feed.client.get("/events", headers={"Accept": accept})

        assert (refused.status_code, refused.json()["type"]) == (404, "/problems/no-feed")
        assert 'url = "feed:"' in refused.json()["detail"]


def test_a_position_with_a_line_break_is_refused(api: httpx.Client, db: Db) -> None:
    appended(db)

    assert [api.get("/events", params={"after": after}).status_code for after in ("newest\n", "1\n")] == [400, 400]
