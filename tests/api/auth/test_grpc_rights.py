"""Rights over gRPC: every method, for every role, with good credentials and bad ones, on what is its own or not."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from api.grpc.reservations import OPERATIONS
from domain import items
from domain.access import RIGHTS, Role, Whose
from domain.items import Item
from domain.runtime.errors import UnknownItem
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey, bad_tokens
from tests.api.grpc.requests import UNKNOWN_ID, hour, reserving
from tests.support.builders import Db, a_calendar, a_time_request, hours, reserve, the
from tests.support.grpc_process import ServedGrpc, serving_grpc

OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def served(settings: Settings, provider: IdentityProvider) -> Iterator[ServedGrpc]:
    """A service that wants tokens."""
    with serving_grpc(AUTH="token", AUTH_JWKS_URL=provider.url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE) as served:
        yield served


@pytest.fixture
def service(served: ServedGrpc, db: Db) -> Iterator[ReservationServiceStub]:
    with served.calling() as stub:
        yield stub
    assert served.faults() == []


#: For each method, its operation and a message that names a reservation, or an item if it makes one.
METHODS: Mapping[str, tuple[str, Callable[[str], Message]]] = {
    "reserve": ("reservations.make", lambda item: reserving(resource_id=item, user_id="ann")),
    "confirm": ("reservations.confirm", lambda one: proto.ConfirmRequest(id=one)),
    "update": ("reservations.change", lambda one: proto.UpdateRequest(id=one, note="x")),
    "cancel": ("reservations.cancel", lambda one: proto.CancelRequest(id=one)),
    "get": ("reservations.read", lambda one: proto.GetRequest(id=one)),
    "Query": ("reservations.list", lambda _: proto.QueryRequest(start=hour(0), end=hour(9))),
}

ON_ONE_RESERVATION = sorted(METHODS.keys() - {"reserve", "Query"})


def code(service: ReservationServiceStub, method: str, subject: str, token: str | None) -> grpc.StatusCode:
    """Return the status of a call that brings this token."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    _, message = METHODS[method]
    try:
        answer = getattr(service, method)(message(subject), metadata=metadata)
        if method == "Query":
            list(answer)
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()
        return found
    return OK


def test_every_method_of_the_contract_is_tried_here() -> None:
    methods = proto.DESCRIPTOR.services_by_name["ReservationService"].methods_by_name

    assert {*METHODS} == {*methods}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_for_nobody_whose_credentials_are_bad(
    service: ReservationServiceStub, key: SigningKey, method: str
) -> None:
    tokens: dict[str, str | None] = {
        kind: token for kind, token in bad_tokens(key).items() if token.isascii() and "\0" not in token
    }

    codes = {kind: code(service, method, UNKNOWN_ID, token) for kind, token in (tokens | {"none": None}).items()}

    assert set(codes.values()) == {UNAUTHENTICATED}, codes


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_for_the_roles_that_have_a_right_to_its_operation(
    service: ReservationServiceStub, key: SigningKey, db: Db, method: str
) -> None:
    operation, _ = METHODS[method]
    subject = a_calendar(db, venue="lisbon", provider="rita", capacity=9).sku if method == "reserve" else UNKNOWN_ID

    codes = {
        role: code(service, method, subject, key.token(role, venues=["lisbon"], provider_id="rita")) for role in Role
    }

    assert {role for role, code in codes.items() if code is not DENIED} == {*RIGHTS[operation]}, codes
    assert UNAUTHENTICATED not in codes.values()


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", ON_ONE_RESERVATION)
def test_a_reservation_exists_for_those_to_whom_it_belongs(
    service: ReservationServiceStub, key: SigningKey, db: Db, method: str, role: Role
) -> None:
    operation, _ = METHODS[method]
    token = key.token(role, venues=["lisbon"], provider_id="rita")
    own, others, nobodys = (
        a_calendar(db, venue="lisbon", provider="rita"),
        a_calendar(db, venue="porto"),
        a_calendar(db),
    )

    codes = {
        "own": code(service, method, a_reservation(db, own, "ann"), token),
        "others": code(service, method, a_reservation(db, others, "bob"), token),
        "nobodys": code(service, method, a_reservation(db, nobodys, None), token),
        "gone": code(service, method, UNKNOWN_ID, token),
    }

    whose = RIGHTS[operation].get(role)
    if whose is None:
        assert set(codes.values()) == {DENIED}
    else:
        mine = {"own", "others", "nobodys"} if whose is Whose.ALL else {"own"}
        assert {one for one, code in codes.items() if code is not NOT_FOUND} == mine, codes


def a_reservation(db: Db, item: Item, guest: str | None) -> str:
    (answer,) = reserve(db, a_time_request(item, hours(10, 11), guest_id=guest))
    return id_of(answer)


def id_of(answer: Any) -> str:
    return str(answer.text.split('"id":"')[1].split('"')[0])


def test_a_guest_reserves_as_themselves_whatever_the_message_leaves_out(
    service: ReservationServiceStub, key: SigningKey, db: Db
) -> None:
    room = a_calendar(db, capacity=9)
    guest = [("authorization", f"Bearer {key.token('guest')}")]

    made = service.reserve(reserving(resource_id=room.sku, user_id=""), metadata=guest).reservation

    assert the(db, made.id).guest_id == "ann"
    with pytest.raises(grpc.RpcError) as refused:
        service.reserve(reserving(resource_id=room.sku, user_id="bob"), metadata=guest)
    assert refused.value.code() is DENIED


def test_a_guest_is_streamed_their_own_reservations_and_no_others(
    service: ReservationServiceStub, key: SigningKey, db: Db
) -> None:
    room = a_calendar(db, capacity=9)
    own, others = a_reservation(db, room, "ann"), a_reservation(db, room, "bob")
    window = proto.QueryRequest(start=hour(24 * 80), end=hour(24 * 100))

    def streamed(role: str) -> set[str]:
        answers = service.Query(window, metadata=[("authorization", f"Bearer {key.token(role)}")])
        return {one.id for one in answers}

    assert streamed("guest") == {own}
    assert streamed("staff") == {own, others}


def test_only_those_who_may_create_items_register_a_resource(service: ReservationServiceStub, key: SigningKey) -> None:
    codes = {role: code(service, "reserve", "new-room", key.token(role)) for role in (Role.GUEST, Role.STAFF)}

    assert codes == {Role.GUEST: DENIED, Role.STAFF: OK}


HOST_AND_GUEST = [(("guest", "business"), {"venues": ["porto"]}), (("guest", "provider"), {"provider_id": "otto"})]


@pytest.mark.parametrize(("roles", "owned"), HOST_AND_GUEST)
def test_a_host_who_is_a_guest_elsewhere_is_no_host_there(
    service: ReservationServiceStub, key: SigningKey, db: Db, roles: tuple[str, ...], owned: Mapping[str, Any]
) -> None:
    room = a_calendar(db, venue="lisbon", provider="rita", capacity=9)
    sender = [("authorization", f"Bearer {key.token(*roles, **owned)}")]
    held = service.reserve(reserving(resource_id=room.sku, user_id="ann"), metadata=sender).reservation

    def code_of(act: Callable[..., Any], message: Message) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as refused:
            act(message, metadata=sender)
        found: grpc.StatusCode = refused.value.code()
        return found

    made = {
        status: code_of(service.reserve, reserving(resource_id=room.sku, user_id="ann", status=status))
        for status in (proto.CONFIRMED, proto.BLOCKED)
    }
    updated = {
        status: code_of(service.update, proto.UpdateRequest(id=held.id, status=status))
        for status in (proto.CONFIRMED, proto.CHECKED_IN, proto.COMPLETED, proto.REJECTED, proto.NO_SHOW, proto.BLOCKED)
    }

    assert set(made.values()) == {DENIED}
    assert set(updated.values()) == {NOT_FOUND}
    assert the(db, held.id).status == "PENDING"


@pytest.mark.parametrize("status", [proto.PENDING, proto.CONFIRMED, proto.BLOCKED])
def test_a_host_makes_reservations_of_their_own_calendar_in_any_first_status(
    service: ReservationServiceStub, key: SigningKey, db: Db, status: int
) -> None:
    room = a_calendar(db, venue="porto", capacity=9)
    host = [("authorization", f"Bearer {key.token('guest', 'business', venues=['porto'])}")]

    made = service.reserve(reserving(resource_id=room.sku, user_id="bob", status=status), metadata=host).reservation

    assert made.status == status


def test_whoever_may_give_a_reservation_a_status_may_change_its_note() -> None:
    """So the right to the status alone says on what both may be done in one call."""
    narrower = {
        operation
        for operation in OPERATIONS.values()
        for role, whose in RIGHTS[operation].items()
        if RIGHTS["reservations.change"].get(role) not in (whose, Whose.ALL)
    }

    assert narrower == set()


def test_the_hold_of_a_guest_expires_and_that_of_a_host_need_not(
    service: ReservationServiceStub, key: SigningKey, db: Db
) -> None:
    room = a_calendar(db, venue="porto", capacity=9)
    wanted = reserving(resource_id=room.sku, user_id="ann")

    held = {
        role: service.reserve(wanted, metadata=[("authorization", f"Bearer {token}")]).reservation.id
        for role, token in {"guest": key.token("guest"), "host": key.token("business", venues=["porto"])}.items()
    }

    assert the(db, held["guest"]).expires_at is not None
    assert the(db, held["host"]).expires_at is None


@pytest.mark.parametrize(("roles", "owned"), [*HOST_AND_GUEST, (("business",), {"venues": ["porto"]})])
def test_who_may_not_register_a_resource_leaves_none_behind(
    service: ReservationServiceStub, key: SigningKey, db: Db, roles: tuple[str, ...], owned: Mapping[str, Any]
) -> None:
    assert code(service, "reserve", "not-theirs", key.token(*roles, **owned)) is DENIED
    with db() as session, pytest.raises(UnknownItem):
        items.get(session, "not-theirs")


def test_health_is_told_to_anybody(served: ServedGrpc) -> None:
    assert served.health() == 1
