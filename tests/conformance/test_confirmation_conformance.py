"""The confirmation step in every trouble: the service and we agree in the end, and no outage decides about a hold."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from domain.fulfilment import CONFIRMATION, STEP_TYPES
from domain.items import Item
from domain.outbox import Route, Routes
from domain.outbox.delivery.history import TAKEN_FOR_EACH_REFUSED
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from tests.conformance.confirmation import ConfirmationHarness
from tests.conformance.harness import AMBIGUOUS, Trouble, event_id
from tests.support.builders import Db, a_hold, an_item, available, routes_of, some_settings, with_routes
from tests.support.outbox import a_relay, rows, states, time_passes
from tests.support.waiting import wait_until
from worker.ordering.pace import Pace
from worker.relay.relay import Relay
from worker.steps.confirmation import ConfirmationStep

HOLDS = 5
UNITS = 100
MAX_ATTEMPTS = 2

#: In the troubles in which a call gets no answer, it gets this time; otherwise more than a busy machine needs.
SHORT_SECONDS, TIMEOUT_SECONDS = 0.5, 20.0

#: How often time passes until everything must have been settled.
PATIENCE = 20

#: The troubles in which the service takes nothing, and nothing is wrong with a hold.
OUTAGES = (Trouble.THROTTLES, Trouble.GOES_DOWN, Trouble.RETURNS)


@dataclass(frozen=True)
class Environment:
    """A relay whose one destination is the service, and an item with holds."""

    harness: ConfirmationHarness
    relay: Relay
    item: Item

    @property
    def db(self) -> Db:
        return self.relay.db

    def hold(self, count: int = HOLDS) -> Sequence[UUID]:
        return [a_hold(self.db, self.item).id for _ in range(count)]

    def status(self, *holds: UUID) -> list[Status]:
        with self.db.begin() as session:
            found = session.execute(select(table.c.id, table.c.status).where(table.c.id.in_(holds)))
            by_id = {one.id: Status(one.status) for one in found}
        return [by_id[one] for one in holds]

    def endure(self, times: int = 3) -> None:
        """Try again and again during the trouble."""
        for _ in range(times):
            self.relay.run()
            time_passes(self.db)

    def let_all_lapse(self) -> None:
        with self.db.begin() as session:
            session.execute(update(table).values(expires_at=func.clock_timestamp()))

    def recover(self) -> None:
        """End the trouble, and ask until nothing is pending."""
        self.harness.recover()
        for _ in range(PATIENCE):
            self.relay.run()
            if set(states(self.db)) <= {"processed", "dead"}:
                break
            time_passes(self.db)

    def check_that_both_agree(self) -> None:
        """What is confirmed here is confirmed there, nothing else is, and the stock that nobody has is there."""
        with self.db.begin() as session:
            statuses = {str(one.id): one.status for one in session.execute(select(table.c.id, table.c.status))}
        confirmed = {one for one, status in statuses.items() if status == Status.CONFIRMED}
        assert self.harness.confirmed() == confirmed
        assert Status.PENDING not in statuses.values()
        assert available(self.db, self.item) == UNITS - len(confirmed)

    def check_that_no_attempt_is_spent(self) -> None:
        assert {row.attempts for row in rows(self.db)} == {0}


@pytest.fixture
def environment(db: Db, request: pytest.FixtureRequest) -> Iterator[Environment]:
    """The time-out of its calls is short if the test has a trouble in which they get no answer."""
    trouble = getattr(request.node, "callspec", None) and request.node.callspec.params.get("trouble")
    seconds = SHORT_SECONDS if trouble in AMBIGUOUS else TIMEOUT_SECONDS
    with closing(ConfirmationHarness()) as harness:
        route = Route(name=CONFIRMATION, url=harness.url, events=tuple(STEP_TYPES), max_attempts=MAX_ATTEMPTS)
        here = with_routes(db, Routes([], [route], STEP_TYPES))
        settings = some_settings(confirmation_timeout_seconds=seconds)
        step = ConfirmationStep(route, settings, here, routes_of(here), Pace(Event()))
        relay = a_relay(here, {CONFIRMATION: route}, {CONFIRMATION: step})
        yield Environment(harness, relay, an_item(here, quantity=UNITS))
        relay.close(grace_seconds=0)


@pytest.mark.parametrize("position", range(1, HOLDS + 1))
def test_a_hold_that_is_refused_is_rejected_and_all_others_are_confirmed(
    environment: Environment, position: int
) -> None:
    holds = environment.hold()
    environment.harness.cause(Trouble.REFUSES, position)

    environment.relay.run()

    assert Counter(environment.status(*holds)) == {Status.CONFIRMED: HOLDS - 1, Status.REJECTED: 1}
    environment.check_that_both_agree()


@pytest.mark.parametrize("position", range(1, HOLDS + 1))
@pytest.mark.parametrize("trouble", [Trouble.FAILS, Trouble.DENIES])
def test_a_hold_that_is_not_taken_waits_and_is_confirmed_later(
    environment: Environment, trouble: Trouble, position: int
) -> None:
    holds = environment.hold()
    environment.harness.cause(trouble, position)
    environment.relay.run()
    assert Counter(environment.status(*holds)) == {Status.CONFIRMED: HOLDS - 1, Status.PENDING: 1}

    environment.recover()

    assert set(environment.status(*holds)) == {Status.CONFIRMED}
    environment.check_that_both_agree()
    environment.check_that_no_attempt_is_spent()


@pytest.mark.parametrize("trouble", [Trouble.FAILS, Trouble.DENIES])
def test_a_hold_that_alone_is_not_taken_is_cancelled_and_released(environment: Environment, trouble: Trouble) -> None:
    holds = environment.hold()
    environment.harness.cause(trouble, position=1)

    # In doubt first; then the first attempt is spent, and the last one. Enough others are taken in between.
    for _ in range(MAX_ATTEMPTS + 1):
        environment.relay.run()
        environment.hold(TAKEN_FOR_EACH_REFUSED)
        environment.relay.run()
        time_passes(environment.db)
    environment.recover()

    assert Counter(environment.status(*holds)) == {Status.CONFIRMED: HOLDS - 1, Status.CANCELLED: 1}
    environment.check_that_both_agree()


@pytest.mark.parametrize("trouble", OUTAGES)
def test_an_outage_decides_about_no_hold(environment: Environment, trouble: Trouble) -> None:
    holds = environment.hold()
    environment.harness.cause(trouble)
    environment.endure(MAX_ATTEMPTS + 1)
    assert set(environment.status(*holds)) == {Status.PENDING}

    environment.recover()

    assert set(environment.status(*holds)) == {Status.CONFIRMED}
    environment.check_that_both_agree()
    environment.check_that_no_attempt_is_spent()


@pytest.mark.parametrize("trouble", AMBIGUOUS)
def test_what_is_in_doubt_is_asked_again_under_the_same_id(environment: Environment, trouble: Trouble) -> None:
    holds = environment.hold()
    asked_in_doubt(environment, trouble)

    environment.recover()

    assert max(Counter(map(event_id, environment.harness.accepted())).values()) > 1
    assert set(environment.status(*holds)) == {Status.CONFIRMED}
    environment.check_that_both_agree()
    environment.check_that_no_attempt_is_spent()


@pytest.mark.parametrize("trouble", [*AMBIGUOUS, *OUTAGES])
def test_a_hold_that_lapses_in_trouble_is_confirmed_nowhere(environment: Environment, trouble: Trouble) -> None:
    """The service may have confirmed it, and its answer was lost."""
    holds = environment.hold()
    if trouble in AMBIGUOUS:
        asked_in_doubt(environment, trouble)
    else:
        environment.harness.cause(trouble)
        environment.endure()

    environment.let_all_lapse()
    environment.recover()

    assert set(environment.status(*holds)) == {Status.EXPIRED}
    environment.check_that_both_agree()


def asked_in_doubt(environment: Environment, trouble: Trouble) -> None:
    """Ask until the service has taken something whose answer was lost."""
    environment.harness.cause(trouble)
    environment.endure()
    wait_until("the service has taken an event", environment.harness.accepted)
