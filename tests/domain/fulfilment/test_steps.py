"""The routes that are loaded: the destinations of the routes file, and the steps that the settings lead to."""

from pathlib import Path

import pytest

from domain.fulfilment import CONFIRMATION, STEP_TYPES, load_routes
from domain.runtime.errors import ConfigurationError
from tests.support.builders import some_settings

CONFIRM_URL = "http://127.0.0.1:1/confirm"


def a_routes_file(directory: Path, name: str, *events: str) -> Path:
    path = directory / "routes.toml"
    path.write_text(f'[[destination]]\nname = "{name}"\nurl = "null:"\nevents = {list(events) or ["*"]}')
    return path


def test_without_a_file_every_event_goes_to_the_log_and_to_the_feed() -> None:
    log, feed = load_routes(some_settings()).destinations

    assert (log.name, log.url, log.events) == ("log", "log:", ("*",))
    assert (feed.name, feed.url, feed.events) == ("feed", "feed:", ("*",))


def test_a_file_replaces_the_log_and_the_feed(tmp_path: Path) -> None:
    routes = load_routes(some_settings(routes_file=a_routes_file(tmp_path, "partner")))

    assert routes.names == ["partner"]
    assert routes.wanting("booking.created") == ["partner"]


def test_the_confirmation_url_leads_to_a_step_that_gets_its_own_types_and_no_other_event() -> None:
    routes = load_routes(some_settings(confirmation_url=CONFIRM_URL))

    (step,) = routes.steps
    assert (step.name, step.url) == (CONFIRMATION, CONFIRM_URL)
    assert routes.names == ["log", "feed", CONFIRMATION]
    for step_type in STEP_TYPES:
        is_its_own = step_type in {"reservation_confirm", "reservation_release"}
        assert routes.wanting(step_type) == ([CONFIRMATION] if is_its_own else [])
    assert routes.wanting("booking.created") == ["log", "feed"]


@pytest.mark.parametrize(
    ("step", "events"),
    [
        ("inventory", ["inventory_hold", "inventory_release"]),
        ("pricing", ["price_quote"]),
        ("payment", ["payment_intent", "payment_refund"]),
    ],
)
def test_each_service_has_a_step_of_its_own(step: str, events: list[str]) -> None:
    routes = load_routes(some_settings(**{f"{step}_url": CONFIRM_URL}))

    assert [(one.name, list(one.events)) for one in routes.steps] == [(step, events)]
    assert routes.step_types == STEP_TYPES


QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/booking-request-queue"


def test_the_queues_of_slots_get_their_own_types_and_whoever_reads_everything_does_not() -> None:
    routes = load_routes(some_settings(sqs_booking_request_queue_url=QUEUE))

    queue = routes.sinks[-1]
    assert (queue.name, queue.format) == ("slot-booking-requests", "slot")
    assert queue.url == "sqs://sqs.us-east-1.amazonaws.com/123456789012/booking-request-queue"
    assert routes.wanting("slot_booking.created") == ["slot-booking-requests"]
    assert routes.wanting("slot_booking.confirmed") == []
    assert routes.wanting("booking.created") == ["log", "feed"]


@pytest.mark.parametrize("pattern", ["slot_booking.*", "slot_booking.created"])
def test_a_destination_of_the_file_gets_the_events_of_slots_by_a_pattern_that_begins_so(
    tmp_path: Path, pattern: str
) -> None:
    routes = load_routes(some_settings(routes_file=a_routes_file(tmp_path, "partner", pattern)))

    assert routes.wanting("slot_booking.created") == ["partner"]
    assert routes.wanting("booking.created") == []


def test_a_destination_of_the_file_can_not_have_the_name_of_a_queue(tmp_path: Path) -> None:
    both = some_settings(
        routes_file=a_routes_file(tmp_path, "slot-booking-requests"), sqs_booking_request_queue_url=QUEUE
    )

    with pytest.raises(ConfigurationError, match="SQS_BOOKING_REQUEST_QUEUE_URL"):
        load_routes(both)


def test_without_the_url_of_a_service_no_destination_gets_the_step_types() -> None:
    routes = load_routes(some_settings())

    assert {one: routes.wanting(one) for one in STEP_TYPES} == {one: [] for one in STEP_TYPES}


def test_there_is_one_feed_at_the_most(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(
        "".join(f'[[destination]]\nname = "{name}"\nurl = "{url}"\n' for name, url in (("a", "feed:"), ("b", "feed:")))
    )

    with pytest.raises(ConfigurationError, match="HOLDFAST_ROUTES: 'a' and 'b' both have the URL feed:"):
        load_routes(some_settings(routes_file=path))


def test_a_destination_of_the_file_must_not_have_the_name_of_the_step(tmp_path: Path) -> None:
    both = some_settings(routes_file=a_routes_file(tmp_path, CONFIRMATION), confirmation_url=CONFIRM_URL)

    with pytest.raises(ConfigurationError, match=r"HOLDFAST_ROUTES: 'confirmation' .* CONFIRMATION_URL"):
        load_routes(both)


def test_without_a_confirmation_url_a_destination_of_the_file_may_have_the_name_of_the_step(tmp_path: Path) -> None:
    routes = load_routes(some_settings(routes_file=a_routes_file(tmp_path, CONFIRMATION)))

    assert routes.names == [CONFIRMATION]


def test_a_mistake_in_the_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        load_routes(some_settings(routes_file=a_routes_file(tmp_path, "Big")))


@pytest.mark.parametrize(
    "pattern", ["booking.creation", "Booking.*", "reservation_*", "booking.[c", "booking.created.v1", " booking.*", ""]
)
def test_a_pattern_that_matches_no_event_type_is_refused(tmp_path: Path, pattern: str) -> None:
    path = a_routes_file(tmp_path, "partner", "booking.*", pattern)

    with pytest.raises(
        ConfigurationError, match=r"'partner': .* matches no event type.* booking\.created, "
    ) as refusal:
        load_routes(some_settings(routes_file=path))

    assert repr(pattern) in str(refusal.value)


@pytest.mark.parametrize(
    "pattern", ["*", "booking.*", "*.created", "booking.[!c]*", "booking.no_show", "reservation_confirm"]
)
def test_a_pattern_that_matches_an_event_type_is_taken(tmp_path: Path, pattern: str) -> None:
    routes = load_routes(some_settings(routes_file=a_routes_file(tmp_path, "partner", pattern)))

    assert [route.events for route in routes.destinations] == [(pattern,)]
