"""The outbox over HTTP: what the commands of operators do, a bounded number of rows at a time, with who and why."""

from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from sqlalchemy import func, text, update

from api.outbox.schemas import StateKind
from domain.outbox.operations.explain import End, Obstacle
from domain.outbox.operations.status import MAX_COUNTED
from domain.outbox.table import outbox
from tests.support.builders import Db, a_hold, an_event, an_item, recorded
from tests.support.operations import a_backlog, audited, mark_dead, mark_delivered
from tests.support.outbox import an_aggregate, destination, recorded_for, row, rows, states
from tests.support.refusals import Environment, everything, unchanged_environment

ANN = {"X-Client-Id": "ann@ops"}
WHY = {"why": "the shop is back"}


def answer_to(api: httpx.Client, path: str, **body: Any) -> Any:
    """Request a change as Ann. Return the answer."""
    return api.post(path, json=WHY | body, headers=ANN).raise_for_status().json()


def letters(db: Db, count: int, of: str = "422 no room 101") -> list[int]:
    ids = recorded_for(db, *(an_aggregate(number % 32) for number in range(count)))
    mark_dead(db, *ids, of=of)
    return list(ids)


def test_the_status_of_each_destination_is_listed(api: httpx.Client, db: Db) -> None:
    letters(db, 2)
    recorded_for(db, an_aggregate())

    (status,) = [one for one in api.get("/outbox/destinations").json()["destinations"] if one["name"] == "events"]

    assert (status["condition"], status["pending"], status["dead"], status["lanes_leased"]) == ("up", 1, 2, 0)
    assert not status["routed"], "the API of these tests has the default routes"


def test_a_count_that_ended_at_its_limit_is_listed_as_a_lower_bound(api: httpx.Client, db: Db) -> None:
    def counted() -> Any:
        (status,) = [one for one in api.get("/outbox/destinations").json()["destinations"] if one["name"] == "events"]
        return status["pending"], status["waiting"], status["lower_bounds"]

    a_backlog(db, MAX_COUNTED + 2, to="events")
    assert counted() == (MAX_COUNTED, 0, ["pending"])

    with db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id <= 3).values(available_at=func.now()))
    assert counted() == (MAX_COUNTED + 2, 3, [])


def test_a_destination_is_paused_however_long_it_takes_to_count_what_it_has(api: httpx.Client, db: Db) -> None:
    with db.begin() as session:
        session.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
        paused = answer_to(api, "/outbox/destinations/events/pause")

    assert paused["condition"] == "paused"


def test_a_destination_is_paused_and_resumed_with_who_and_why(api: httpx.Client, db: Db) -> None:
    paused = answer_to(api, "/outbox/destinations/events/pause")

    assert (paused["condition"], paused["reason"]) == ("paused", "the shop is back (ann@ops)")
    assert destination(db, "events").paused
    assert answer_to(api, "/outbox/destinations/events/resume")["condition"] == "up"
    assert [(one.action, one.who, one.why) for one in audited(db)] == [
        ("pause", "ann@ops", "the shop is back"),
        ("resume", "ann@ops", "the shop is back"),
    ]


def test_a_probe_where_nothing_is_down_changes_nothing(api: httpx.Client, db: Db) -> None:
    before = everything(db)

    assert answer_to(api, "/outbox/destinations/events/probe")["condition"] == "up"
    assert everything(db) == before


def test_a_change_sent_twice_with_one_key_is_made_once(api: httpx.Client, db: Db) -> None:
    headers = ANN | {"Idempotency-Key": "k-1"}
    letters(db, 3)
    body = WHY | {"selection": {"all": True}}

    first, second = (api.post("/outbox/dead-letters/discard", json=body, headers=headers) for _ in range(2))
    other = api.post("/outbox/dead-letters/discard", json=body | {"limit": 7}, headers=headers)

    assert first.content == second.content and first.json()["rows"] == 3
    assert second.headers["Idempotency-Replayed"] == "true"
    assert other.status_code == 409
    assert [one.rows for one in audited(db)] == [3]


def test_dead_letters_are_grouped(api: httpx.Client, db: Db) -> None:
    letters(db, 3)
    letters(db, 1, of="oops")

    groups = api.get("/outbox/dead-letters/groups").json()["groups"]

    assert [(one["error"], one["rows"]) for one in groups] == [("# no room #", 3), ("oops", 1)]
    assert api.get("/outbox/dead-letters/groups", params={"type": "no.such"}).json() == {"groups": []}


def test_dead_letters_are_listed_page_by_page_without_their_payloads(api: httpx.Client, db: Db) -> None:
    recorded(db, an_event(guest_id="Ann Archer"), an_event(), an_event())
    mark_dead(db, 1, 2, 3)

    first = api.get("/outbox/dead-letters", params={"limit": 2})
    second = api.get("/outbox/dead-letters", params={"limit": 2, "cursor": first.json()["next_cursor"]})

    listed = [one["id"] for page in (first, second) for one in page.json()["dead_letters"]]
    assert (listed, second.json()["next_cursor"]) == ([1, 2, 3], None)
    assert "Ann Archer" not in first.text


def test_the_letters_of_a_group_are_listed_and_replayed_by_its_name(api: httpx.Client, db: Db) -> None:
    letters(db, 2)
    letters(db, 1, of="oops")
    name = api.get("/outbox/dead-letters/groups").json()["groups"][0]["group"]

    listed = api.get("/outbox/dead-letters", params={"group": name}).json()["dead_letters"]
    done = answer_to(api, "/outbox/dead-letters/replay", selection={"group": name})

    assert [one["id"] for one in listed] == [1, 2]
    assert (done["rows"], done["next_cursor"]) == (2, None)
    assert states(db) == ["waiting", "waiting", "dead"]
    (entry,) = audited(db)
    assert (entry.action, entry.who, entry.rows, entry.selection["group"]) == ("replay", "ann@ops", 2, name)


def test_a_replay_continues_where_the_last_request_ended(api: httpx.Client, db: Db) -> None:
    ids = recorded_for(db, *(an_aggregate() for _ in range(5)))
    mark_delivered(db, *ids)
    body: dict[str, Any] = {"selection": {"all": True}, "limit": 2}

    first = answer_to(api, "/outbox/replay", **body)
    mark_delivered(db, *ids[:2])  # the replayed rows are delivered once more
    body["selection"]["before"] = first["before"]
    second = answer_to(api, "/outbox/replay", **body, cursor=first["next_cursor"])
    third = answer_to(api, "/outbox/replay", **body, cursor=second["next_cursor"])

    assert [one["rows"] for one in (first, second, third)] == [2, 2, 1]
    assert third["next_cursor"] is None
    assert states(db) == ["processed"] * 2 + ["waiting"] * 3


@pytest.mark.parametrize("path", ["/outbox/replay", "/outbox/dead-letters/replay", "/outbox/dead-letters/discard"])
def test_a_dry_run_counts_and_changes_nothing(api: httpx.Client, db: Db, path: str) -> None:
    letters(db, 3)
    mark_delivered(db, *recorded_for(db, an_aggregate(), an_aggregate(), an_aggregate()))
    before = everything(db)

    done = answer_to(api, path, selection={"all": True}, dry_run=True, limit=2)

    assert (done["rows"], done["dry_run"], done["next_cursor"]) == (3, True, None)
    assert everything(db) == before


def test_a_delivered_step_is_skipped_and_counted(api: httpx.Client, db: Db) -> None:
    a_hold(db, an_item(db))
    mark_delivered(db, *(one.id for one in rows(db)))

    counted = answer_to(api, "/outbox/replay", selection={"since": "2020-01-01T00:00:00Z"}, dry_run=True)
    done = answer_to(api, "/outbox/replay", selection={"since": "2020-01-01T00:00:00Z"})

    assert (counted["rows"], counted["skipped_steps"]) == (1, 1)
    assert (done["rows"], done["skipped_steps"]) == (1, None)


def test_what_was_discarded_can_not_be_replayed(api: httpx.Client, db: Db) -> None:
    letters(db, 2)
    answer_to(api, "/outbox/dead-letters/discard", selection={"id": 1})

    assert answer_to(api, "/outbox/dead-letters/replay", selection={"all": True})["rows"] == 1
    assert states(db) == ["dead", "waiting"]


def test_the_reasons_why_an_event_is_not_delivered_are_listed(api: httpx.Client, db: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(db, aggregate, aggregate)
    mark_dead(db, 1, of="422 no room 101")
    answer_to(api, "/outbox/destinations/events/pause")

    of_both = api.get(f"/outbox/why/{aggregate}").json()["deliveries"]
    of_one = api.get(f"/outbox/why/{row(db, 2).event_id}").json()["deliveries"]

    dead, pending = of_both
    assert of_one == [pending]
    assert [(one["kind"], one["error"], one["attempts"]) for one in dead["states"]] == [("dead", "422 no room 101", 12)]
    assert [one["kind"] for one in pending["states"]] == ["unrouted", "paused"]


def test_the_document_has_every_kind_of_state() -> None:
    assert set(get_args(StateKind)) == {one.kind for one in (*get_args(End), *get_args(Obstacle))}


@pytest.fixture
def environment(api: httpx.Client, db: Db) -> Iterator[Environment]:
    with unchanged_environment(api, db) as environment:
        yield environment


ALL = '"selection": {"all": true}'
FUTURE = "2999-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/outbox/replay", '{"why": "w", "selection": {}}', "selection"),
        ("/outbox/dead-letters/discard", '{"why": "w", "selection": {}}', "selection"),
        ("/outbox/replay", f"{{{ALL}}}", "why"),
        ("/outbox/replay", f'{{{ALL}, "why": ""}}', "why"),
        ("/outbox/replay", f'{{{ALL}, "why": " "}}', "why"),
        ("/outbox/replay", f'{{{ALL}, "why": "w", "limit": 1001}}', "limit"),
        ("/outbox/replay", f'{{{ALL}, "why": "w", "cursor": "-1"}}', "cursor"),
        ("/outbox/replay", f'{{{ALL}, "why": "w", "cursor": "{2**64}"}}', "cursor"),
        ("/outbox/replay", f'{{{ALL}, "why": "w", "colour": "red"}}', "colour"),
        ("/outbox/replay", '{"why": "w", "selection": {"error": "oops"}}', "selection.error"),
        ("/outbox/replay", '{"why": "w", "selection": {"type": "reservation_confirm"}}', "type"),
        ("/outbox/replay", '{"why": "w", "selection": {"since": "2030-01-31T12:00:00"}}', "selection.since"),
        ("/outbox/replay", f'{{"why": "w", "selection": {{"since": "{FUTURE}"}}}}', "since"),
        ("/outbox/dead-letters/replay", '{"why": "w", "selection": {"group": "no group"}}', "selection.group"),
        ("/outbox/dead-letters/replay", '{"why": "w", "selection": {"error": "a\\u0000b"}}', "selection.error"),
        ("/outbox/destinations/events/pause", "{}", "why"),
        ("/outbox/destinations/No such/pause", '{"why": "w"}', "name"),
        ("/outbox/destinations/nowhere/pause", '{"why": "w"}', "name"),
        ("/outbox/destinations/nowhere/resume", '{"why": "w"}', "name"),
        ("/outbox/destinations/nowhere/probe", '{"why": "w"}', "name"),
    ],
)
def test_a_refusal_names_the_field_that_is_wrong(environment: Environment, path: str, body: str, field: str) -> None:
    assert environment.refuses_body(body, path)["field"] == field


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/outbox/why/no-id", "subject_id"),
        ("/outbox/why/01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21", "subject_id"),
        ("/outbox/dead-letters?cursor=-1", "cursor"),
        ("/outbox/dead-letters?limit=1001", "limit"),
        ("/outbox/dead-letters?group=x", "group"),
        ("/outbox/dead-letters?destination=%00", "destination"),
        ("/outbox/dead-letters/groups?type=%00", "type"),
    ],
)
def test_a_refusal_names_the_parameter_that_is_wrong(environment: Environment, path: str, field: str) -> None:
    assert environment.refuses("GET", path)["field"] == field


def test_a_refusal_of_an_unknown_destination_lists_the_known_ones(environment: Environment) -> None:
    problem = environment.refuses_body('{"why": "w"}', "/outbox/destinations/nowhere/pause")

    assert problem["known"] == "confirmation, events"


def test_no_more_rows_change_than_the_limit(api: httpx.Client, db: Db) -> None:
    letters(db, 5)

    done = answer_to(api, "/outbox/dead-letters/discard", selection={"all": True}, limit=3)

    assert (done["rows"], done["next_cursor"]) == (3, "3")
    assert sum(one.discarded_at is not None for one in rows(db)) == 3
