"""Rights: every operation of the API, for every role, on what is its own and on what is not."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from api.app import ROUTES
from domain import items
from domain.access import OPEN, RIGHTS, Role, Whose
from domain.idempotency import Answered
from domain.items import Item
from tests.api.auth.identity import SigningKey, bad_tokens
from tests.support.builders import a_request, reserve

#: What a path names, and what a request must say.
NAMED = {"{sku:path}": "THING", "{name:str}": "log", "{slug:str}": "busy"}
FIELDS = {"/guest": {"name": "x"}, "/extend": {"ttl_seconds": 60}, "PATCH": {"note": "x"}, "PUT": {"quantity": 1}}


def operations() -> Iterator[tuple[str, str, str]]:
    """Yield the operation, the method and the path of every handler."""
    for handler in ROUTES:
        (method,) = handler.http_methods - {"HEAD", "OPTIONS"}
        for path in handler.paths:
            yield handler.opt["operation"], method, path


CASES = sorted(operations())
ON_ONE_RESERVATION = [(method, path) for _, method, path in CASES if "{reservation_id" in path]

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(api: httpx.Client) -> Ask:
    """Send a request with a token, if there is one."""

    def ask(token: str | None, method: str, path: str, headers: dict[str, str] | None = None, **given: Any) -> Any:
        authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        return api.request(method, path, headers=authorization | (headers or {}), **given)

    return ask


@pytest.fixture
def thing(db: sessionmaker[Session]) -> Item:
    with db.begin() as session:
        return items.create(session, sku="THING", name="Thing", available_quantity=9)


@pytest.fixture
def reservation_of(db: sessionmaker[Session], thing: Item) -> Callable[[str], UUID]:
    """Make a reservation of a guest, and return its id."""

    return lambda guest: make(db, thing, guest)


def make(db: sessionmaker[Session], thing: Item, guest: str | None) -> UUID:
    (answer,) = reserve(db, a_request(thing, guest_id=guest))
    assert isinstance(answer, Answered)
    return UUID(json.loads(answer.text)["id"])


def at(path: str, subject: UUID, item: Item) -> str:
    """Return a path that names this reservation, this item, or a destination."""
    named = NAMED | dict.fromkeys(("{reservation_id:str}", "{subject_id:str}"), str(subject))
    for name, value in (named | {"{item_id:str}": str(item.id)}).items():
        path = path.replace(name, value)
    return path


def body_of(method: str, path: str) -> dict[str, Any]:
    """Return what a request has as its body."""
    if method == "GET":
        return {}
    wanted = [fields for where, fields in FIELDS.items() if where == method or path.endswith(where)]
    return {"json": wanted[0] if wanted else {}}


@pytest.mark.parametrize(("operation", "method", "path"), CASES)
def test_an_operation_is_for_the_roles_that_have_a_right_to_it(
    ask: Ask,
    key: SigningKey,
    thing: Item,
    reservation_of: Callable[[str], UUID],
    operation: str,
    method: str,
    path: str,
) -> None:
    where, body = at(path, reservation_of("bob"), thing), body_of(method, path)

    statuses = {role: ask(key.token(role), method, where, **body).status_code for role in Role}
    anonymous = ask(None, method, where, **body).status_code

    if operation in OPEN:
        assert not {401, 403} & {anonymous, *statuses.values()}
    else:
        assert anonymous == 401
        assert {role for role, status in statuses.items() if status != 403} == {*RIGHTS[operation]}


@pytest.mark.parametrize(("operation", "method", "path"), CASES)
def test_an_operation_is_for_nobody_whose_credentials_are_bad(
    ask: Ask, key: SigningKey, thing: Item, operation: str, method: str, path: str
) -> None:
    where, body = at(path, uuid4(), thing), body_of(method, path)

    statuses = {kind: ask(token, method, where, **body).status_code for kind, token in bad_tokens(key).items()}

    if operation in OPEN:
        assert 401 not in statuses.values()
    else:
        assert set(statuses.values()) == {401}, statuses


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("operation", "method", "path"), [case for case in CASES if "{reservation_id" in case[2]])
def test_a_reservation_exists_for_those_to_whom_it_belongs(
    ask: Ask, key: SigningKey, db: sessionmaker[Session], role: Role, operation: str, method: str, path: str
) -> None:
    whose = RIGHTS[operation].get(role)
    token = key.token(role, venues=["lisbon"], provider_id="rita")
    with db.begin() as session:
        sold = partial(items.create, session, name="Thing", available_quantity=9)
        own = sold(sku="OWN", venue="lisbon", provider="rita")
        others = sold(sku="OTHERS", venue="porto", provider="rui")
        nobodys = sold(sku="NOBODYS")

    def answer(subject: UUID) -> int:
        # A guest who is not there is not found, whosever the reservation is.
        ask(key.token("admin"), "PUT", f"/reservations/{subject}/guest", json={"name": "Somebody"})
        return ask(token, method, at(path, subject, own), **body_of(method, path)).status_code

    statuses = {
        "own": answer(make(db, own, "ann")),
        "others": answer(make(db, others, "bob")),
        "nobodys": answer(make(db, nobodys, None)),
        "gone": answer(uuid4()),
    }

    if whose is None:
        assert set(statuses.values()) == {403}
    else:
        mine = {"own", "others", "nobodys"} if whose is Whose.ALL else {"own"}
        assert {one for one, status in statuses.items() if status != 404} == mine, statuses


@pytest.mark.parametrize(("method", "path"), ON_ONE_RESERVATION)
def test_a_reservation_of_somebody_else_does_not_exist_for_a_guest(
    ask: Ask, key: SigningKey, thing: Item, reservation_of: Callable[[str], UUID], method: str, path: str
) -> None:
    def answer(reservation: UUID) -> tuple[int, str]:
        response = ask(key.token("guest"), method, at(path, reservation, thing), **body_of(method, path))
        said = response.text.replace(str(reservation), "").replace(response.headers["X-Request-Id"], "")
        return response.status_code, said

    others, nobodys = answer(reservation_of("bob")), answer(uuid4())

    assert others == nobodys
    assert others[0] in {403, 404}


def test_a_guest_lists_their_own_reservations_and_no_others(
    ask: Ask, key: SigningKey, reservation_of: Callable[[str], UUID]
) -> None:
    own, others = reservation_of("ann"), reservation_of("bob")

    def listed(token: str, **query: str) -> Sequence[str]:
        return [one["id"] for one in ask(token, "GET", "/reservations", params=query).json()["reservations"]]

    assert listed(key.token("guest")) == [str(own)]
    assert listed(key.token("guest"), sku="THING", guest_id="bob") == []
    assert listed(key.token("staff")) == [str(others), str(own)]


def test_a_guest_reserves_as_themselves_and_as_nobody_else(ask: Ask, key: SigningKey, thing: Item) -> None:
    def made(**guest: object) -> httpx.Response:
        wanted = {"sku": thing.sku, "quantity": 1, **guest}
        return ask(key.token("guest"), "POST", "/reservations", json=wanted)

    assert made().json()["guest"] == made(guest={"id": "ann"}).json()["guest"] == {"id": "ann"}
    assert made(guest={"id": "bob"}).status_code == 403


def test_the_same_key_of_two_guests_gets_two_answers(ask: Ask, key: SigningKey, thing: Item) -> None:
    def made(guest: str) -> str:
        wanted, once = {"sku": thing.sku, "quantity": 1}, {"Idempotency-Key": "1"}
        response = ask(key.token("guest", sub=guest), "POST", "/reservations", headers=once, json=wanted)
        return str(response.json()["id"])

    assert made("ann") == made("ann") != made("bob")
