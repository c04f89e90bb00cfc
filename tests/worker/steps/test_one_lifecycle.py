"""One lifecycle, whichever way a reservation is reached: bookings, slots, gRPC, or the workers that ask a service.

Each way has a place for one, and all get the same script. After each verb, all say the same of every reservation.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import StrEnum
from threading import Event
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run
from sqlalchemy import select

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.bookings import NewBooking
from domain.bookings.saga import Step
from domain.fulfilment import load_routes
from domain.idempotency import Answered
from domain.reservations.lifecycle import Status
from domain.reservations.table import history
from domain.runtime.errors import NotFree
from domain.runtime.settings import Settings
from tests.api.grpc.requests import reserving
from tests.support.builders import a_calendar, a_time_request, hours, let_lapse, reserve, with_routes
from tests.support.grpc_process import serving_grpc
from tests.support.hypothesis_settings import MODEL
from tests.support.invariants import violations
from tests.support.outbox import time_passes
from tests.worker.steps.conftest import Harness, OpenHarness
from worker.maintenance import seal_audit


class Verb(StrEnum):
    CONFIRM = "confirm"
    REJECT = "reject"
    CANCEL = "cancel"


#: What each verb makes of a reservation, by its status. Otherwise nothing changes.
BECOMES = {
    (Verb.CONFIRM, Status.PENDING): Status.CONFIRMED,
    (Verb.REJECT, Status.PENDING): Status.REJECTED,
    (Verb.CANCEL, Status.PENDING): Status.CANCELLED,
    (Verb.CANCEL, Status.CONFIRMED): Status.CANCELLED,
}

TAKES_THE_PLACE = {Status.PENDING, Status.CONFIRMED}


class Way(ABC):
    """A way to reserve one place, which only one can have."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    @abstractmethod
    def make(self) -> str | None:
        """Reserve the place. Return the id, None if it is taken."""

    @abstractmethod
    def act(self, verb: Verb, reservation_id: str) -> None:
        """Ask for this, whether it is possible or not."""

    @abstractmethod
    def status(self, reservation_id: str) -> str:
        """Return the status as this way shows it, in upper case."""


class Http(Way):
    """A way over HTTP."""

    def __init__(self, api: httpx.Client) -> None:
        super().__init__()
        self.api = api

    def made(self, path: str, **wanted: object) -> str | None:
        answer = self.api.post(path, json=wanted)
        assert answer.status_code in (201, 409), answer.text
        return str(answer.json()["id"]) if answer.is_success else None

    def asked(self, path: str, body: object = None) -> None:
        answer = self.api.post(path, json=body)
        assert answer.status_code in (200, 400, 409), answer.text

    def shown(self, path: str) -> str:
        return str(self.api.get(path).raise_for_status().json()["status"]).upper()


class BookingsApi(Http):
    def __init__(self, api: httpx.Client, name: str) -> None:
        super().__init__(api)
        self.venue = f"venue-{name}"
        calendar = {"sku": name, "name": name, "kind": "calendar", "capacity": 1, "time_zone": "Europe/Rome"}
        api.post("/items", json=calendar | {"venue": self.venue}).raise_for_status()

    def make(self) -> str | None:
        return self.made(
            "/api/v1/bookings",
            venue_id=self.venue,
            booking_date="2030-05-03",
            booking_time="19:30",
            duration_minutes=60,
            party_size=1,
        )

    def act(self, verb: Verb, reservation_id: str) -> None:
        to = BECOMES[verb, Status.PENDING]
        self.asked(f"/api/v1/bookings/{reservation_id}/status", {"status": to})

    def status(self, reservation_id: str) -> str:
        return self.shown(f"/api/v1/bookings/{reservation_id}")


class SlotsApi(Http):
    def __init__(self, api: httpx.Client, name: str) -> None:
        super().__init__(api)
        self.provider, self.slot = f"provider-{name}", f"slot-{name}"
        slot = {"slotId": self.slot, "start": "2030-02-19T10:00:00Z", "end": "2030-02-19T11:00:00Z", "name": name}
        api.post(f"/providers/{self.provider}/slots", json=slot).raise_for_status()

    def make(self) -> str | None:
        return self.made("/bookings", slotId=self.slot, userId="user-456")

    def act(self, verb: Verb, reservation_id: str) -> None:
        if verb is Verb.CANCEL:
            self.asked(f"/bookings/{reservation_id}/cancel")
        else:
            decision = "accept" if verb is Verb.CONFIRM else "reject"
            self.asked(f"/providers/{self.provider}/bookings/{reservation_id}/{decision}")

    def status(self, reservation_id: str) -> str:
        return self.shown(f"/bookings/{reservation_id}")


class GrpcApi(Http):
    """gRPC. It can't reject, so that is done over HTTP."""

    def __init__(self, api: httpx.Client, service: ReservationServiceStub, name: str) -> None:
        super().__init__(api)
        self.service, self.resource = service, f"grpc-{name}"
        api.post("/items", json={"sku": self.resource, "name": name, "kind": "calendar", "capacity": 1})

    def make(self) -> str | None:
        answer = self.called(self.service.reserve, reserving(resource_id=self.resource))
        return answer and str(answer.reservation.id)

    def act(self, verb: Verb, reservation_id: str) -> None:
        if verb is Verb.REJECT:
            self.asked(f"/reservations/{reservation_id}/reject")
        elif verb is Verb.CONFIRM:
            self.called(self.service.confirm, proto.ConfirmRequest(id=reservation_id))
        else:
            self.called(self.service.cancel, proto.CancelRequest(id=reservation_id))

    def called(self, method: Any, request: object) -> Any:
        """Return the answer, None if it is a refusal."""
        try:
            return method(request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return None

    def status(self, reservation_id: str) -> str:
        found = self.service.get(proto.GetRequest(id=reservation_id)).reservation
        return str(proto.ReservationStatus.Name(found.status))


class Workers(Http):
    """The confirmation service, whose answers workers bring. Nobody but people cancels, so that is done over HTTP."""

    def __init__(self, api: httpx.Client, harness: Harness, name: str) -> None:
        super().__init__(api)
        self.harness = harness
        self.booking = NewBooking(venue=f"worker-{name}", time_zone="Europe/Rome")
        self.calendar = a_calendar(harness.db, 1, time_zone="Europe/Rome", venue=self.booking.venue)

    def make(self) -> str | None:
        wanted = a_time_request(self.calendar, hours(18, 20), booking=self.booking, render=lambda made: str(made.id))
        (outcome,) = reserve(self.harness.db, wanted)
        assert isinstance(outcome, Answered | NotFree)
        return outcome.text if isinstance(outcome, Answered) else None

    def act(self, verb: Verb, reservation_id: str) -> None:
        if verb is Verb.CANCEL:
            self.asked(f"/reservations/{reservation_id}/cancel")
            return
        if self.status(reservation_id) != Status.PENDING:
            return  # The service would be asked about the one that is.
        self.harness.services.has("reservation_confirm", ever="refused" if verb is Verb.REJECT else "ok")
        self.harness.relay.run_side_by_side()
        time_passes(self.harness.db)

    def status(self, reservation_id: str) -> str:
        return self.shown(f"/reservations/{reservation_id}")


class Lifecycle(RuleBasedStateMachine):
    """The same script for all ways."""

    made = Bundle("made")
    api: httpx.Client
    service: ReservationServiceStub
    harness: Harness
    names: Iterator[int]

    def __init__(self) -> None:
        super().__init__()
        self.ways: list[Way] = []
        self.statuses: list[Status] = []

    @initialize()
    def open(self) -> None:
        name = str(next(self.names))
        self.ways = [
            BookingsApi(self.api, name),
            SlotsApi(self.api, name),
            GrpcApi(self.api, self.service, name),
            Workers(self.api, self.harness, name),
        ]

    @rule(target=made)
    def make(self) -> object:
        is_free = not TAKES_THE_PLACE & {*self.statuses}
        ids = [way.make() for way in self.ways]

        assert [made is not None for made in ids] == [is_free] * len(ids)
        if not is_free:
            return multiple()
        for way, made in zip(self.ways, ids, strict=True):
            way.ids.append(str(made))
        self.statuses.append(Status.PENDING)
        return len(self.statuses) - 1

    @rule(one=made, verb=st.sampled_from(Verb))
    def act(self, one: int, verb: Verb) -> None:
        for way in self.ways:
            way.act(verb, way.ids[one])
        self.statuses[one] = BECOMES.get((verb, self.statuses[one]), self.statuses[one])

    @rule(one=made, is_seen=st.booleans())
    def lapse(self, one: int, is_seen: bool) -> None:
        """The time of a hold is over, and maintenance has seen that or not."""
        if self.statuses[one] is not Status.PENDING:
            return
        for way in self.ways:
            let_lapse(self.harness.db, UUID(way.ids[one]))
        if is_seen:
            self.harness.expire()
        self.statuses[one] = Status.EXPIRED

    @invariant()
    def all_ways_say_the_same(self) -> None:
        for way in self.ways:
            said = [way.status(one) for one in way.ids]
            assert said == self.statuses, type(way).__name__

    def teardown(self) -> None:
        self.harness.expire()
        seal_audit(self.harness.db, Event())
        assert violations(self.harness.db) == {}
        for ids in zip(*(way.ids for way in self.ways), strict=True):
            changes = {type(way).__name__: self.history(one) for way, one in zip(self.ways, ids, strict=True)}
            assert len({*changes.values()}) == 1, changes

    def history(self, reservation_id: str) -> tuple[tuple[str, str | None], ...]:
        """Return the kind of each change of a reservation, with the status that it got."""
        changes = select(history.c.kind, history.c.to_status).order_by(history.c.id)
        with self.harness.db.begin() as session:
            found = session.execute(changes.where(history.c.reservation_id == UUID(reservation_id))).all()
        return tuple((kind, status) for kind, status in found)


@pytest.mark.slow
def test_all_ways_lead_to_the_same(api: httpx.Client, a_harness: OpenHarness, settings: Settings) -> None:
    harness = a_harness(Step.CONFIRMATION)
    # The API has routes of its own.
    with_routes(harness.db, load_routes(settings))
    with serving_grpc() as served, served.calling() as service:
        Lifecycle.api, Lifecycle.service, Lifecycle.harness = api, service, harness
        Lifecycle.names = iter(range(1_000))
        run(Lifecycle, settings=MODEL)
        assert served.faults() == []
