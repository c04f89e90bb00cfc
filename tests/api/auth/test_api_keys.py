"""API keys: what they let in, and when they no longer do."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from domain.access import Role, api_keys
from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving
from tests.support.waiting import wait_until

Db = sessionmaker[Session]

#: A key that was revoked is refused by every process within this time.
REVOKED_SECONDS = 5.0


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[Served]:
    """An API that has no identity provider."""
    with serving(AUTH="token") as served:
        yield served


@pytest.fixture
def create(db: Db) -> Callable[..., str]:
    def create(name: str = "till", *roles: Role, lasting: timedelta | None = None) -> str:
        with db.begin() as session:
            return api_keys.create(session, name, roles or [Role.STAFF], lasting=lasting, who="ann")

    return create


def status(api: httpx.Client, key: str) -> int:
    return api.get("/items", headers={"Authorization": f"Bearer {key}"}).status_code


def test_a_key_lets_in_as_soon_as_it_was_created(api: httpx.Client, create: Callable[..., str]) -> None:
    assert status(api, create()) == 200


def test_a_key_has_the_rights_of_its_roles(api: httpx.Client, create: Callable[..., str]) -> None:
    assert status(api, create("pager", Role.OPERATOR)) == 403


def test_a_revoked_key_is_refused_within_seconds(api: httpx.Client, db: Db, create: Callable[..., str]) -> None:
    key = create()
    before = status(api, key)
    with db.begin() as session:
        api_keys.revoke(session, "till", who="ann")

    wait_until("it is refused", lambda: status(api, key) == 401, within=REVOKED_SECONDS)

    assert before == 200


def test_a_key_that_expires_is_refused_then(api: httpx.Client, create: Callable[..., str]) -> None:
    key = create(lasting=timedelta(seconds=2))
    before = status(api, key)

    wait_until("it is refused", lambda: status(api, key) == 401)

    assert before == 200


def test_a_key_that_was_replaced_serves_on_for_the_overlap(
    api: httpx.Client, db: Db, create: Callable[..., str]
) -> None:
    old = create()
    with db.begin() as session:
        new = api_keys.rotate(session, "till", timedelta(seconds=3), who="ann")

    assert (status(api, old), status(api, new)) == (200, 200)
    wait_until("the old one is refused", lambda: status(api, old) == 401)
    assert status(api, new) == 200


def test_both_keys_of_a_rotation_are_the_same_client(api: httpx.Client, db: Db, create: Callable[..., str]) -> None:
    old = create()
    with db.begin() as session:
        new = api_keys.rotate(session, "till", timedelta(hours=1), who="ann")

    def made(key: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "1"}
        return api.post("/items", json={"sku": "A", "name": "A", "available_quantity": 1}, headers=headers)

    assert (made(old).status_code, made(new).headers.get("Idempotency-Replayed")) == (201, "true")


@pytest.mark.parametrize(
    "wrong", ["hf_", "hf_x", "hf_x_", "hf__x", "hf_{id}_wrong", "hf_{id}_", "hf_{id}_\xe9", "hf_a_b_c"]
)
def test_what_is_no_key_is_refused(api: httpx.Client, create: Callable[..., str], wrong: str) -> None:
    key_id = create().split("_")[1]

    sent = f"Bearer {wrong.format(id=key_id)}".encode("latin-1")

    assert api.get("/items", headers=[(b"Authorization", sent)]).status_code == 401


def test_a_key_is_stored_nowhere(db: Db, create: Callable[..., str]) -> None:
    secret = create().split("_", 2)[2]

    with db.begin() as session:
        (stored,) = api_keys.find(session)

    assert secret not in repr(stored)


def test_the_day_of_its_last_use_is_noted(api: httpx.Client, db: Db, create: Callable[..., str]) -> None:
    status(api, create())

    def last_used() -> object:
        with db.begin() as session:
            (stored,) = api_keys.find(session)
            return stored.last_used_on

    assert wait_until("it is noted", last_used)
