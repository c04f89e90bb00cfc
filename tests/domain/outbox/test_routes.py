"""Routes: which destination wants which events."""

import pytest

from domain.outbox import Route, Routes

#: The domain of the outbox knows no step type: its user says which event types ask for something to be done.
STEPS = frozenset({"room.clean", "room.inspect"})


@pytest.mark.parametrize(
    ("wants", "event_type", "is_wanted"),
    [
        ("*", "booking.created", True),
        ("booking.*", "booking.created", True),
        ("booking.*", "booking", False),
        ("booking.*", "payment.done", False),
        ("*.created", "booking.created", True),
        ("booking.created", "booking.created", True),
        ("booking.created", "booking.created.again", False),
        ("BOOKING.*", "booking.created", False),
        ("*", "room.clean", False),
        ("room.*", "room.clean", False),
        ("*", "room.inspect", False),
        ("room.clean", "room.clean", True),
        ("room.clean", "room.inspect", False),
    ],
)
def test_a_destination_wants_what_it_names_and_a_wildcard_never_matches_a_step(
    wants: str, event_type: str, is_wanted: bool
) -> None:
    routes = Routes([Route(name="a", url="log:", events=(wants,))], step_types=STEPS)

    assert bool(routes.wanting(event_type)) is is_wanted


@pytest.mark.parametrize("wants", ["*", "room.*"])
def test_without_step_types_a_wildcard_matches_every_event(wants: str) -> None:
    routes = Routes([Route(name="a", url="log:", events=(wants,))])

    assert routes.step_types == frozenset()
    assert routes.wanting("room.clean") == ["a"]


def test_a_wildcard_matches_no_step_even_in_the_route_of_a_step() -> None:
    wildcard = Route(name="everything", url="log:", events=("*",))
    cleaning = Route(name="cleaning", url="log:", events=("room.clean",))
    routes = Routes([wildcard], [wildcard.model_copy(update={"name": "steps"}), cleaning], STEPS)

    assert routes.wanting("room.clean") == ["cleaning"]
    assert routes.wanting("booking.created") == ["everything", "steps"]


def test_all_destinations_that_want_an_event_are_found_in_the_order_of_the_file() -> None:
    routes = Routes(
        [
            Route(name="b", url="log:"),
            Route(name="a", url="log:", events=("booking.*", "payment.*")),
            Route(name="c", url="log:", events=()),
        ],
        step_types=STEPS,
    )

    assert routes.names == ["b", "a", "c"]
    assert [routes.wanting(name) for name in ("booking.created", "other", "room.clean")] == [["b", "a"], ["b"], []]
