"""The stand-in for the outside world: demos and fault tests are worth as much as it is to be relied upon."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from standardwebhooks import Webhook

from domain.outbox import routes_file
from domain.runtime.settings import Settings
from examples.partners import memory
from examples.partners.app import create_app
from examples.partners.webhooks import DEMO_SECRET

ROOT = Path(__file__).resolve().parent.parent
ROUTES = ROOT / "examples" / "partners" / "routes.toml"

#: A process that is not up or gone by then never will be.
PATIENCE_SECONDS = 20.0

#: Granian's own shortest patience with a worker is one second; the rest is for a busy machine.
AT_ONCE_SECONDS = 5.0

#: Far from the demo's own, so that nothing is signed with the right one by accident.
ANOTHER_SECRET = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBhbHRvZ2V0aGVy"

Partners = TestClient[Litestar]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARTNERS_SEED", "PARTNERS_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def partners() -> Iterator[Partners]:
    with TestClient(create_app()) as client:
        yield client


def an_envelope(
    event_type: str = "reservation_confirm",
    *,
    event_id: str = "event-1",
    booking_id: str = "booking-1",
    sku: str = "ROOM",
) -> dict[str, Any]:
    payload = {
        "booking_id": booking_id,
        "item_id": 7,
        "sku": sku,
        "quantity": 2,
        "status": "PENDING",
        "version": 1,
        "guest_id": None,
        "expires_at": "2030-01-01T00:15:00+00:00",
    }
    return {
        "event_id": event_id,
        "event_type": event_type,
        "payload": payload,
        "timestamp": "2030-01-01T00:00:00+00:00",
        "source": "booking-reservation-service",
        "version": "1.0",
    }


def ask(partners: httpx.Client, envelope: dict[str, Any] | None = None, *, key: str | None = None) -> httpx.Response:
    envelope = envelope or an_envelope()
    return partners.post("/confirmations", json=envelope, headers={"Idempotency-Key": key or envelope["event_id"]})


def tell(
    partners: httpx.Client,
    event_id: str = "event-1",
    *,
    booking_id: str = "booking-1",
    secret: str = DEMO_SECRET,
    signed_at: datetime | None = None,
) -> httpx.Response:
    body = json.dumps(an_envelope("booking.created", event_id=event_id, booking_id=booking_id))
    headers = signed(body, event_id, secret=secret, signed_at=signed_at or datetime.now(UTC))
    return partners.post("/webhooks", content=body, headers=headers)


def signed(body: str, event_id: str, *, secret: str, signed_at: datetime) -> dict[str, str]:
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(signed_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(event_id, signed_at, body),
    }


def turn(partners: httpx.Client, **knobs: object) -> None:
    assert partners.put("/knobs", json=knobs).status_code == 200


def received(partners: httpx.Client, since: int = 0) -> Any:
    return partners.get("/received", params={"since": since}).json()


def ids(page: Any) -> list[str]:
    return [event["id"] for event in page["events"]]


# The confirmation service


def test_a_booking_is_confirmed(partners: Partners) -> None:
    answer = ask(partners)

    assert (answer.status_code, answer.json()) == (200, {"confirmed": True})
    assert partners.get("/confirmations").json() == {"bookings": {"booking-1": "confirmed"}, "repeats": 0}


def test_a_sku_on_the_list_is_refused_with_a_reason_and_others_are_not(partners: Partners) -> None:
    turn(partners, refuse_skus=["SUITE"])

    suite = ask(partners, an_envelope(event_id="event-1", booking_id="booking-1", sku="SUITE"))
    room = ask(partners, an_envelope(event_id="event-2", booking_id="booking-2", sku="ROOM"))

    assert suite.status_code == 422
    assert suite.json()["confirmed"] is False
    assert "SUITE" in suite.json()["reason"]
    assert room.status_code == 200
    assert partners.get("/confirmations").json()["bookings"] == {"booking-1": "refused", "booking-2": "confirmed"}


def test_a_repeated_key_gets_the_first_answer_whatever_has_changed_since(partners: Partners) -> None:
    yes = ask(partners, an_envelope(event_id="event-1", booking_id="booking-1"))
    turn(partners, refuse_skus=["ROOM"])
    no = ask(partners, an_envelope(event_id="event-2", booking_id="booking-2"))

    yes_again = ask(partners, an_envelope(event_id="event-1", booking_id="booking-1"))
    turn(partners, refuse_skus=[])
    no_again = ask(partners, an_envelope(event_id="event-2", booking_id="booking-2"))

    assert (yes_again.status_code, yes_again.content) == (200, yes.content)
    assert (no_again.status_code, no_again.content) == (422, no.content)
    assert partners.get("/confirmations").json() == {
        "bookings": {"booking-1": "confirmed", "booking-2": "refused"},
        "repeats": 2,
    }


def test_a_release_lets_go_even_of_what_would_be_refused_now(partners: Partners) -> None:
    ask(partners, an_envelope(event_id="event-1"))
    turn(partners, refuse_skus=["ROOM"])

    answer = ask(partners, an_envelope("reservation_release", event_id="event-2"))

    assert (answer.status_code, answer.json()) == (200, {"confirmed": False})
    assert partners.get("/confirmations").json()["bookings"] == {"booking-1": "released"}


def test_a_late_confirmation_does_not_bring_back_what_was_released(partners: Partners) -> None:
    ask(partners, an_envelope("reservation_release", event_id="event-2"))

    late = ask(partners, an_envelope("reservation_confirm", event_id="event-1"))

    assert late.status_code == 422
    assert partners.get("/confirmations").json()["bookings"] == {"booking-1": "released"}


def test_a_request_without_a_key_is_refused(partners: Partners) -> None:
    answer = partners.post("/confirmations", json=an_envelope())

    assert answer.status_code == 400
    assert partners.get("/confirmations").json()["bookings"] == {}


@pytest.mark.parametrize(
    "missing", ["booking_id", "item_id", "sku", "quantity", "status", "version", "guest_id", "expires_at"]
)
def test_an_envelope_that_breaks_the_contract_is_refused(partners: Partners, missing: str) -> None:
    envelope = an_envelope()
    del envelope["payload"][missing]

    answer = ask(partners, envelope)

    assert answer.status_code == 400
    assert missing in answer.json()["reason"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"event_id": "\xff"}'])
def test_a_body_that_is_no_json_is_refused(partners: Partners, body: bytes) -> None:
    assert partners.post("/confirmations", content=body, headers={"Idempotency-Key": "k"}).status_code == 400


# The webhook receiver


def test_a_rightly_signed_event_is_received(partners: Partners) -> None:
    answer = tell(partners, "event-1", booking_id="booking-9")

    assert (answer.status_code, answer.content) == (204, b"")
    assert received(partners) == {
        "events": [{"id": "event-1", "type": "booking.created", "booking_id": "booking-9"}],
        "repeats": 0,
        "forgotten": 0,
    }


def test_an_event_signed_with_another_secret_is_refused(partners: Partners) -> None:
    answer = tell(partners, secret=ANOTHER_SECRET)

    assert answer.status_code == 401
    assert ids(received(partners)) == []


def test_an_event_whose_body_was_changed_on_the_way_is_refused(partners: Partners) -> None:
    headers = signed(
        json.dumps(an_envelope("booking.created")), "event-1", secret=DEMO_SECRET, signed_at=datetime.now(UTC)
    )

    answer = partners.post("/webhooks", content=json.dumps(an_envelope("booking.cancelled")), headers=headers)

    assert answer.status_code == 401
    assert ids(received(partners)) == []


def test_an_old_event_that_is_played_again_is_refused(partners: Partners) -> None:
    assert tell(partners, signed_at=datetime.now(UTC) - timedelta(minutes=6)).status_code == 401


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_an_event_that_lacks_a_part_of_its_signature_is_refused(partners: Partners, missing: str) -> None:
    body = json.dumps(an_envelope("booking.created"))
    headers = signed(body, "event-1", secret=DEMO_SECRET, signed_at=datetime.now(UTC))
    del headers[missing]

    assert partners.post("/webhooks", content=body, headers=headers).status_code == 401
    assert ids(received(partners)) == []


@pytest.mark.parametrize("signature", ["nonsense", "v1,a", "v1,a,b", "v2,YWJj"])
def test_a_signature_that_is_none_is_refused_and_not_an_error(partners: Partners, signature: str) -> None:
    body = json.dumps(an_envelope("booking.created"))
    headers = signed(body, "event-1", secret=DEMO_SECRET, signed_at=datetime.now(UTC))

    answer = partners.post("/webhooks", content=body, headers=headers | {"webhook-signature": signature})

    assert answer.status_code == 401


@pytest.mark.parametrize("body", ["", "[]", '{"payload": {}}', '{"event_type": "booking.created"}'])
def test_a_signed_body_that_is_no_event_is_refused(partners: Partners, body: str) -> None:
    headers = signed(body, "event-1", secret=DEMO_SECRET, signed_at=datetime.now(UTC))

    assert partners.post("/webhooks", content=body, headers=headers).status_code == 400


def test_the_environment_can_name_another_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTNERS_WEBHOOK_SECRET", ANOTHER_SECRET)

    with TestClient(create_app()) as partners:
        assert tell(partners, secret=ANOTHER_SECRET).status_code == 204
        assert tell(partners, secret=DEMO_SECRET).status_code == 401


def test_events_are_remembered_in_order_of_receipt_and_repeats_are_only_counted(partners: Partners) -> None:
    for event_id in ("event-2", "event-1", "event-2", "event-3", "event-2"):
        assert tell(partners, event_id).status_code == 204

    assert ids(received(partners)) == ["event-2", "event-1", "event-3"]
    assert received(partners)["repeats"] == 2


def test_what_was_received_can_be_paged_from_an_index(partners: Partners) -> None:
    for event_id in ("event-0", "event-1", "event-2"):
        tell(partners, event_id)

    assert ids(received(partners, since=1)) == ["event-1", "event-2"]
    assert ids(received(partners, since=3)) == []
    assert partners.get("/received", params={"since": -1}).status_code == 400


# What both remember


def test_the_oldest_is_forgotten_first_and_indexes_stay(partners: Partners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REMEMBERED", 2)

    for number in range(4):
        tell(partners, f"event-{number}")
        ask(partners, an_envelope(event_id=f"event-{number}", booking_id=f"booking-{number}"))

    assert (ids(received(partners)), received(partners)["forgotten"]) == (["event-2", "event-3"], 2)
    assert ids(received(partners, since=3)) == ["event-3"]
    assert list(partners.get("/confirmations").json()["bookings"]) == ["booking-2", "booking-3"]


def test_a_key_is_forgotten_with_its_answer_when_there_is_no_room(
    partners: Partners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "REMEMBERED", 2)
    for key in ("event-0", "event-1", "event-2"):
        ask(partners, key=key)

    ask(partners, key="event-2")
    ask(partners, key="event-0")

    assert partners.get("/confirmations").json()["repeats"] == 1


def test_forgetting_is_about_both_partners(partners: Partners) -> None:
    for _ in range(2):
        tell(partners)
        ask(partners)

    assert partners.delete("/received").status_code == 204

    assert received(partners) == {"events": [], "repeats": 0, "forgotten": 0}
    assert partners.get("/confirmations").json() == {"bookings": {}, "repeats": 0}
    turn(partners, refuse_skus=["ROOM"])
    assert ask(partners).status_code == 422  # thought about again, so the key was forgotten too


# The knobs


def test_the_knobs_are_off_at_the_start(partners: Partners) -> None:
    assert partners.get("/knobs").json() == {
        "latency_seconds": 0,
        "error_rate": 0,
        "refuse_skus": [],
        "outage": False,
    }


def test_turning_some_knobs_turns_the_others_off(partners: Partners) -> None:
    turn(partners, outage=True)

    turn(partners, refuse_skus=["SUITE"])

    assert partners.get("/knobs").json() == {
        "latency_seconds": 0,
        "error_rate": 0,
        "refuse_skus": ["SUITE"],
        "outage": False,
    }


@pytest.mark.parametrize(
    "knobs",
    [
        {"garble": True},
        {"outage": "true"},
        {"outage": 1},
        {"error_rate": "0.5"},
        {"error_rate": 1.1},
        {"error_rate": -0.1},
        {"latency_seconds": -1},
        {"latency_seconds": 301},
        {"refuse_skus": "SUITE"},
        [],
    ],
)
def test_knobs_that_make_no_sense_are_refused_and_change_nothing(partners: Partners, knobs: object) -> None:
    turn(partners, refuse_skus=["SUITE"])

    answer = partners.put("/knobs", json=knobs)

    assert answer.status_code == 400
    assert answer.json()["reason"]
    assert partners.get("/knobs").json()["refuse_skus"] == ["SUITE"]


def test_an_outage_is_of_both_partners_and_says_when_to_come_back(partners: Partners) -> None:
    turn(partners, outage=True)

    answers = [ask(partners), tell(partners)]

    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "1"), (503, "1")]


def test_an_outage_leaves_no_trace_and_can_be_watched_and_ended(partners: Partners) -> None:
    turn(partners, outage=True)
    ask(partners)
    tell(partners)

    assert received(partners)["events"] == []
    assert partners.get("/confirmations").json()["bookings"] == {}
    turn(partners, outage=False)
    assert (ask(partners).status_code, tell(partners).status_code) == (200, 204)


def test_with_an_error_rate_of_one_everything_fails_and_leaves_no_trace(partners: Partners) -> None:
    turn(partners, error_rate=1)

    assert (ask(partners).status_code, tell(partners).status_code) == (500, 500)

    assert received(partners)["events"] == []
    assert partners.get("/confirmations").json()["bookings"] == {}


def failures(monkeypatch: pytest.MonkeyPatch, *, seed: str | None, quiet: int = 0) -> list[bool]:
    """Return which of 400 requests failed at a rate of a quarter, in a new process after some quiet ones."""
    if seed:
        monkeypatch.setenv("PARTNERS_SEED", seed)
    with TestClient(create_app()) as partners:
        for _ in range(quiet):
            ask(partners)
        turn(partners, error_rate=0.25)
        return [ask(partners).status_code == 500 for _ in range(400)]


def test_the_share_of_errors_is_the_error_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 80 <= sum(failures(monkeypatch, seed="1")) <= 120


def test_the_same_seed_strikes_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    by_default = failures(monkeypatch, seed=None)

    assert failures(monkeypatch, seed="1") == by_default
    assert failures(monkeypatch, seed="1", quiet=3) == by_default
    assert failures(monkeypatch, seed="2") != by_default


def test_latency_keeps_both_partners_callers_waiting_and_then_answers(partners: Partners) -> None:
    turn(partners, latency_seconds=0.2)

    for call, status in ((ask, 200), (tell, 204)):
        began = time.monotonic()
        assert call(partners).status_code == status
        assert time.monotonic() - began >= 0.2


# The process


@contextmanager
def a_process(port: int | None = None) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """Run the partners for real, on a free port unless one is given, and wait until they answer."""
    port = port or a_free_port()
    with (
        launched(port) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_SECONDS) as client,
    ):
        wait_until_it_answers(client)
        yield process, client


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def launched(port: int) -> Iterator["subprocess.Popen[str]"]:
    """Start the process, and end it with its worker, which would outlive it."""
    command = [sys.executable, "-m", "examples.partners.app", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # it has ended already, and its worker with it
                os.killpg(process.pid, signal.SIGKILL)


def wait_until_it_answers(client: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.get("/")
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the partners never answered"
            time.sleep(0.02)


def test_it_says_first_that_it_is_a_stand_in() -> None:
    with a_process() as (process, client):
        assert process.stdout is not None
        printed = process.stdout.readline()
        served = client.get("/").text.splitlines()[0]

    assert "STAND-IN" in printed
    assert "not part of the product" in printed
    assert printed.startswith(served)


def test_the_real_process_has_one_memory_whatever_the_connection() -> None:
    with a_process() as (_, client):
        for number in range(20):
            with httpx.Client(base_url=client.base_url, trust_env=False) as another:
                assert ask(another, an_envelope(event_id=f"event-{number}")).status_code == 200
                assert tell(another, f"event-{number}").status_code == 204

        assert ids(received(client)) == [f"event-{number}" for number in range(20)]


def test_two_of_them_do_not_share_a_port_and_half_the_calls_each() -> None:
    with a_process() as (_, client):
        port = client.base_url.port or 0
        with launched(port) as second:
            _, complaint = second.communicate(timeout=PATIENCE_SECONDS)

        assert second.returncode == 2
        assert f"port {port}" in complaint


def test_it_can_be_started_again_on_the_port_that_it_had() -> None:
    with a_process() as (process, client):
        port = client.base_url.port or 0
        process.terminate()
        # It hangs up first while the client is connected, so the system remembers its end for a while.
        process.wait(timeout=AT_ONCE_SECONDS)

    with a_process(port) as (_, client):
        assert ask(client).status_code == 200


def test_slow_answers_do_not_hold_up_each_other() -> None:
    with a_process() as (_, client):
        turn(client, latency_seconds=0.5)
        began = time.monotonic()
        calls = [threading.Thread(target=ask, args=(client,), kwargs={"key": f"key-{n}"}) for n in range(8)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()

        assert 0.5 <= time.monotonic() - began < 8 * 0.5


def test_sigterm_ends_it_at_once_though_callers_wait() -> None:
    with a_process() as (process, client):
        turn(client, latency_seconds=300)
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as waiting:
            waiting.sendall(b"POST /webhooks HTTP/1.1\r\nHost: partners\r\nContent-Length: 0\r\n\r\n")
            client.get("/")
            process.send_signal(signal.SIGTERM)

            process.wait(timeout=AT_ONCE_SECONDS)

        with pytest.raises(httpx.ConnectError):
            client.get("/")


# The routes


def test_the_product_reads_the_routes_and_the_partner_accepts_their_secret(
    partners: Partners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTNERS_PORT", "8123")
    settings = Settings.model_validate(
        {"database_url": "postgresql://nowhere/none", "routes_file": ROUTES, "confirmation_url": None}
    )

    log, partner = routes_file.load(settings).destinations

    assert (log.name, log.url) == ("log", "log:")
    assert (partner.name, partner.url) == ("partner", "http://127.0.0.1:8123/webhooks")
    assert partner.wants("booking.created")
    (secret,) = partner.secret
    assert tell(partners, secret=secret).status_code == 204


def test_the_routes_are_plain_toml() -> None:
    assert list(tomllib.loads(ROUTES.read_text())) == ["destination"]
