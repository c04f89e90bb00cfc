"""A key service outside: guests are kept with its keys, and while it is down or hangs, only they can't be used."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving
from tests.support.builders import Db, an_item
from tests.support.key_services import DOWN, HANGING, NAME, STATE, WELL
from tests.support.waiting import wait_until

ANN = {"name": "Ann", "email": "ann@example.com", "telephone": None, "special_requests": None}

#: More requests than there are threads for personal data.
MANY = 20


@pytest.fixture
def state(tmp_path: Path) -> Path:
    file = tmp_path / "state"
    file.write_text(WELL)
    return file


@pytest.fixture
def served(settings: Settings, db: Db, state: Path) -> Iterator[Served]:
    with serving(PII_KEYS="", PII_KEY_SERVICE=NAME, **{STATE: str(state)}) as served:
        yield served
        state.write_text(WELL)


def reserve(served: Served, sku: str, guest: Any = ANN, key: str = "k") -> httpx.Response:
    wanted = {"sku": sku, "quantity": 1, "guest": guest}
    return served.client.post("/reservations", json=wanted, headers={"Idempotency-Key": key}, timeout=60)


def test_guests_are_kept_with_the_keys_of_the_service(served: Served, db: Db) -> None:
    made = reserve(served, an_item(db).sku).json()["id"]

    assert served.client.get(f"/reservations/{made}/guest").json() == ANN
    assert served.client.post("/guests/search", json={"email": "ann@example.com"}).json()["reservation_ids"] == [made]


def test_while_the_service_is_down_nothing_is_kept_and_all_without_guests_works(
    served: Served, db: Db, state: Path
) -> None:
    item, api = an_item(db), served.client
    made = reserve(served, item.sku).json()["id"]
    state.write_text(DOWN)

    answers = [
        reserve(served, item.sku, key="other"),
        api.get(f"/reservations/{made}/guest"),
        api.put(f"/reservations/{made}/guest", json=ANN | {"name": "Bob"}),
        api.post("/guests/search", json={"email": "ann@example.com"}),
    ]

    assert [answer.json()["type"] for answer in answers] == ["/problems/personal-data-unavailable"] * 4
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["Retry-After"] for answer in answers)
    assert reserve(served, item.sku, {"id": "guest-42"}, key="plain").status_code == 201
    assert "key_service.unavailable" in served.logged() and "0123" not in served.logged()
    state.write_text(WELL)
    assert reserve(served, item.sku, key="other").status_code == 201
    assert api.get(f"/reservations/{made}/guest").json() == ANN


@pytest.mark.slow
def test_while_the_service_hangs_other_requests_are_answered_and_those_for_it_given_up(
    served: Served, db: Db, state: Path
) -> None:
    item = an_item(db)
    state.write_text(HANGING)
    with ThreadPoolExecutor(MANY) as threads:
        hanging = [threads.submit(reserve, served, item.sku, ANN, f"{n}") for n in range(MANY)]
        for path in ("/metrics", "/health/ready", f"/items/{item.sku}"):
            assert served.client.get(path, timeout=5).status_code == 200
        assert reserve(served, item.sku, {"id": "guest-42"}, key="plain").status_code == 201
        types = {one.result().json()["type"] for one in hanging}

    assert types <= {"/problems/personal-data-unavailable", "/problems/busy"}
    state.write_text(WELL)
    wait_until("threads are free again", lambda: reserve(served, item.sku, key="later").status_code == 201)
    assert served.client.get("/reservations").json()["reservations"][0]["status"] == "PENDING"
