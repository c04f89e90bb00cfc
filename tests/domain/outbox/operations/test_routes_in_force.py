"""The routes in force: whoever records first sets them, nobody records by others, and a change is audited."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.access.audit import AuditEntry, audit_entries
from domain.fulfilment import CONFIRMATION, STEP_TYPES
from domain.outbox import Route, Routes
from domain.outbox.operations import routes_in_force
from domain.outbox.operations.routes_in_force import Difference, RoutesInForce
from domain.runtime.errors import ConfigurationError
from tests.support.builders import Db

STEP = Route(name=CONFIRMATION, url="https://confirm.example/", events=tuple(STEP_TYPES))

SHOP = Route(name="shop", url="https://shop.example/", events=("booking.created", "booking.cancelled"))

LOG = Route(name="log", url="log:")


def routes(*sinks: Route, steps: Sequence[Route] = ()) -> Routes:
    return Routes(sinks, steps, STEP_TYPES)


def required(db: Db, wanted: Routes, who: str = "ann@web") -> None:
    with db.begin() as session:
        routes_in_force.require(session, wanted, who=who)


def used(db: Db, wanted: Routes) -> Difference:
    with db.begin() as session:
        return routes_in_force.use(session, wanted, AuditEntry(who="bob@ops", why="an audit log (OPS-7)"))


def in_force(db: Db) -> RoutesInForce:
    with db.begin() as session:
        found = routes_in_force.read(session)
    assert found is not None
    return found


def refusal(db: Db, wanted: Routes) -> str:
    with pytest.raises(ConfigurationError) as refused:
        required(db, wanted)
    return str(refused.value)


def audited(db: Db) -> Sequence[tuple[str, str, dict[str, str]]]:
    columns = audit_entries.c.action, audit_entries.c.who, audit_entries.c.selection
    with db.begin() as session:
        return [(*one,) for one in session.execute(select(*columns).order_by(audit_entries.c.id))]


def test_the_first_process_that_records_puts_its_routes_in_force_and_the_audit_says_so(db: Db) -> None:
    required(db, routes(SHOP, LOG))
    required(db, routes(SHOP, LOG), who="carl@worker")

    assert in_force(db).recorded == {"shop": ["booking.cancelled", "booking.created"], "log": ["*"]}
    assert audited(db) == [("use-routes", "ann@web", {"added": "log, shop"})]


def test_of_two_first_processes_with_different_routes_one_is_refused(db: Db) -> None:
    def is_refused(wanted: Routes) -> bool:
        try:
            required(db, wanted)
        except ConfigurationError:
            return True
        return False

    with ThreadPoolExecutor(2) as both:
        refused = list(both.map(is_refused, [routes(SHOP), routes(LOG)]))

    assert sorted(refused) == [False, True]
    assert len(audited(db)) == 1


def test_a_process_without_a_destination_is_refused_and_it_is_named(db: Db) -> None:
    required(db, routes(SHOP, LOG, steps=[STEP]))

    message = refusal(db, routes(LOG))

    assert "shop: missing, had booking.cancelled, booking.created" in message
    assert "confirmation: missing, had the events of its step" in message
    assert "ann@web" in message and 'bin/destinations use-routes --why "…"' in message


def test_a_process_with_a_further_destination_or_other_events_is_refused_and_both_are_named(db: Db) -> None:
    required(db, routes(SHOP))

    message = refusal(db, routes(SHOP.model_copy(update={"events": ("booking.*",)}), LOG))

    assert "log: added, with *" in message
    assert "shop: changed from booking.cancelled, booking.created to booking.*" in message


@pytest.mark.parametrize(
    "same",
    [
        routes(LOG, SHOP, steps=[STEP]),
        routes(SHOP.model_copy(update={"url": "https://new.example/", "secret": ("whsec_x",)}), LOG, steps=[STEP]),
        routes(SHOP.model_copy(update={"events": (*reversed(SHOP.events), *SHOP.events)}), LOG, steps=[STEP]),
        routes(SHOP, LOG, Route(name="old", url="null:", events=()), steps=[STEP]),
        routes(SHOP, LOG, steps=[STEP.model_copy(update={"events": ("reservation_confirm",)})]),
    ],
    ids=["order", "url and secret", "order of events", "a destination without events", "step of another release"],
)
def test_what_decides_nothing_about_which_rows_are_recorded_may_differ(db: Db, same: Routes) -> None:
    required(db, routes(SHOP, LOG, steps=[STEP]))

    required(db, same)

    assert used(db, same) == Difference([], [], [])
    assert len(audited(db)) == 1


def test_an_operator_changes_the_routes_in_force_and_the_audit_says_what_was_changed(db: Db) -> None:
    required(db, routes(SHOP, LOG))

    difference = used(db, routes(SHOP.model_copy(update={"events": ("*",)}), steps=[STEP]))

    assert difference == Difference(added=["confirmation"], missing=["log"], changed=["shop"])
    assert audited(db)[-1] == (
        "use-routes",
        "bob@ops",
        {"added": "confirmation", "removed": "log", "changed": "shop"},
    )
    assert (in_force(db).who, in_force(db).why) == ("bob@ops", "an audit log (OPS-7)")
    assert "log: added" in refusal(db, routes(SHOP, LOG))


def test_routes_can_be_put_in_force_before_any_process_has_recorded(db: Db) -> None:
    used(db, routes(SHOP))

    required(db, routes(SHOP))
    assert "shop: missing" in refusal(db, routes(LOG))


def test_other_routes_are_noticed_once_there_are_some_in_force(db: Db) -> None:
    def differ(session: Session) -> list[bool]:
        return [routes_in_force.differ(session, one) for one in (routes(SHOP), routes(LOG))]

    with db.begin() as session:
        before = differ(session)
    required(db, routes(SHOP))

    with db.begin() as session:
        assert (before, differ(session)) == ([False, False], [False, True])
