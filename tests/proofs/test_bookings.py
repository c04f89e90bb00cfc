"""Bookings whose services answer late or not at all, by workers that are killed: money and units agree in the end."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import httpx

from domain.bookings import list_price_columns
from domain.bookings.prices import Per
from tests.proofs.checker import check_invariants, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.support.builders import a_calendar
from tests.support.waiting import wait_until

#: The bookings that are made, and how often a worker is killed meanwhile.
BOOKINGS, KILLS = 80, 4

#: The services break, and answer when they are not waited for any more, this often.
TROUBLE = {"error_rate": 0.15, "late_rate": 0.1, "late_seconds": 3.0, "latency_seconds": 0.02}

SERVICES = ("inventory", "payment")


def test_nobody_is_charged_without_a_booking_nor_booked_without_payment(open_cluster: Open, seed: int) -> None:
    """Some are refused, some are cancelled or changed while a service is asked, and some lapse meanwhile."""
    cluster = open_cluster(services=True, STEP_TIMEOUT_SECONDS="1", CONFIRMATION_TIMEOUT_SECONDS="1", HOLD_SECONDS="8")
    api, dice = cluster.api(), Random(seed)
    cluster.scheduler()
    workers = [cluster.worker(threads=2), cluster.worker(threads=2)]
    price = list_price_columns("30.00", "EUR", Per.UNIT)
    for sku in ("OPEN", "REFUSED"):
        a_calendar(cluster.db, 10_000, sku=sku, time_zone="Europe/Rome", venue=sku.lower(), price=price)
    cluster.partners.ready()
    api.ready()
    cluster.partners.set_knobs(
        **TROUBLE,
        inventory=TROUBLE,
        pricing=TROUBLE,
        payment=TROUBLE | {"refuse_skus": ["REFUSED"]},
    )

    with ThreadPoolExecutor(8) as clients:
        asked = [
            clients.submit(use, f"http://127.0.0.1:{api.port}", number, dice.random()) for number in range(BOOKINGS)
        ]
        for _ in range(KILLS):
            time.sleep(1.5)
            workers.pop(0).kill()
            workers.append(cluster.worker(threads=2))
        ids = [one.result() for one in asked]
    cluster.partners.set_knobs()
    wait_until_drained(cluster, skipping=True)

    books, ended = cluster.partners.books(), statuses(cluster, api.port, ids)
    print({status: list(ended.values()).count(status) for status in sorted({*ended.values()})})
    wrong = {one: status for one, status in ended.items() if not is_balanced(status, one, books)}
    assert not wrong, [(one, status, [books[name].get(one) for name in SERVICES]) for one, status in wrong.items()]
    assert {"CONFIRMED", "CANCELLED"} <= {*ended.values()}
    check_invariants(cluster)


def use(url: str, number: int, chance: float) -> str:
    """Make a booking, and cancel or change it a moment later, or leave it. Return its id."""
    booking = {
        "venue_id": "refused" if chance < 0.1 else "open",
        "booking_date": "2030-05-03",
        "booking_time": "19:30",
        "duration_minutes": 60,
        "party_size": 1 + number % 3,
        "idempotency_key": f"booking-{number}",
    }
    with httpx.Client(base_url=f"{url}/api/v1/bookings", timeout=30, trust_env=False) as client:
        made = client.post("", json=booking)
        assert made.status_code == 201, made.text
        at = f"/{made.json()['id']}"
        time.sleep(chance * 2)
        if 0.3 < chance < 0.6:
            assert client.post(f"{at}/cancel").status_code in (200, 400, 409)
        elif chance < 0.3:
            seen = client.get(at).json()
            change = {"expected_version": seen["version"], "party_size": seen["party_size"] + 1}
            assert client.put(at, json=change).status_code in (200, 409)
    return str(made.json()["id"])


def statuses(cluster: Cluster, port: int, ids: list[str]) -> Mapping[str, str]:
    """Return the status of each of these bookings, when none is PENDING any more."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/bookings", timeout=30, trust_env=False) as client:

        def found() -> Mapping[str, str] | None:
            cluster.wake()
            ended = {one: client.get(f"/{one}").json()["status"] for one in ids}
            return None if "PENDING" in ended.values() or pending(cluster) else ended

        return wait_until("every booking is settled", found, within=60)


def pending(cluster: Cluster) -> bool:
    cluster.skip_pauses()
    return bool(cluster.lanes_leased("payment") + cluster.lanes_leased("inventory"))


def is_balanced(status: str, booking_id: str, books: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether the services did for a booking what its status says, and nothing twice."""
    entries = [books[name].get(booking_id) or {} for name in SERVICES]
    did = [(one.get("done", 0), one.get("undone", 0)) for one in entries]
    if status == "CONFIRMED":
        return all(one == (1, 0) for one in did)
    return all(done == undone <= 1 for done, undone in did)
