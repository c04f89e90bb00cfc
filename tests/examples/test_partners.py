"""The example partners, on which the demo and the proofs rely: a confirmation service and a webhook receiver."""

import json
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from granian.server import Server
from litestar import Litestar
from litestar.testing import TestClient
from standardwebhooks import Webhook

from domain.outbox import routes_file
from domain.runtime.settings import ROOT
from examples.partners import app, memory
from examples.partners.webhooks import DEMO_SECRET

OTHER_SECRET = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCBhbHRvZ2V0aGVy"

NOTHING = ({"events": [], "repeats": 0, "forgotten": 0}, {"bookings": {}, "repeats": 0})

Partners = TestClient[Litestar]


@pytest.fixture
def partners() -> Iterator[Partners]:
    with TestClient(app.create_app()) as client:
        yield client


def confirm(partners: Partners, number: int = 1, event_type: str = "reservation_confirm") -> httpx.Response:
    headers = {"Idempotency-Key": f"{event_type}-{number}"}
    return partners.post("/confirmations", json=a_booking(number, event_type), headers=headers)


def a_booking(number: int = 1, event_type: str = "reservation_confirm") -> dict[str, object]:
    return {"event_type": event_type, "payload": {"booking_id": f"booking-{number}", "sku": "ROOM"}}


def deliver(partners: Partners, number: int = 1) -> httpx.Response:
    body = json.dumps({"event_type": "booking.created", "payload": {"booking_id": f"booking-{number}"}})
    return partners.post("/webhooks", content=body, headers=signed(body, f"event-{number}"))


def signed(body: str, event_id: str = "event-1", *, secret: str = DEMO_SECRET) -> dict[str, str]:
    now = datetime.now(UTC)
    signature = Webhook(secret).sign(event_id, now, body)
    return {"webhook-id": event_id, "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


def set_knobs(partners: Partners, **knobs: object) -> None:
    assert partners.put("/knobs", json=knobs).status_code == 200


def remembered(partners: Partners) -> tuple[object, object]:
    return partners.get("/received").json(), partners.get("/confirmations").json()


def test_a_booking_is_confirmed_or_refused_and_a_repeated_key_gets_the_first_response(partners: Partners) -> None:
    yes = confirm(partners, 1)
    set_knobs(partners, refuse_skus=["ROOM"])
    no, repeat = confirm(partners, 2), confirm(partners, 1)

    assert (yes.status_code, yes.json()) == (repeat.status_code, repeat.json()) == (200, {"confirmed": True})
    assert (no.status_code, no.json()) == (422, {"confirmed": False, "reason": "ROOM is not available."})
    bookings = {"booking-1": "confirmed", "booking-2": "refused"}
    assert partners.get("/confirmations").json() == {"bookings": bookings, "repeats": 1}


def test_a_release_is_never_refused_and_a_late_request_does_not_undo_it(partners: Partners) -> None:
    set_knobs(partners, refuse_skus=["ROOM"])
    release = confirm(partners, event_type="reservation_release")
    set_knobs(partners)
    late = confirm(partners)

    assert (release.status_code, release.json()) == (200, {"confirmed": False})
    assert late.status_code == 422
    assert partners.get("/confirmations").json()["bookings"] == {"booking-1": "released"}


def test_a_request_without_a_key_or_a_booking_is_refused(partners: Partners) -> None:
    assert partners.post("/confirmations", json=a_booking()).status_code == 400
    assert partners.post("/confirmations", json={}, headers={"Idempotency-Key": "key"}).status_code == 400


def test_events_are_shown_in_order_of_receipt_and_repeats_are_only_counted(partners: Partners) -> None:
    for number in (2, 1, 2):
        assert deliver(partners, number).status_code == 204

    events = [{"id": f"event-{n}", "type": "booking.created", "booking_id": f"booking-{n}"} for n in (2, 1)]
    assert partners.get("/received").json() == {"events": events, "repeats": 1, "forgotten": 0}


def test_an_event_without_a_valid_signature_is_refused(partners: Partners) -> None:
    malformed = signed("{}") | {"webhook-signature": "v1,a"}

    for headers in ({}, signed("{}", secret=OTHER_SECRET), signed("another body"), malformed):
        assert partners.post("/webhooks", content="{}", headers=headers).status_code == 401

    assert remembered(partners) == NOTHING


def test_the_oldest_events_are_forgotten_first_and_counted(partners: Partners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REMEMBERED", 2)
    for number in range(4):
        deliver(partners, number)
        confirm(partners, number)

    received = partners.get("/received").json()
    assert [event["id"] for event in received["events"]] == ["event-2", "event-3"]
    assert received["forgotten"] == 2
    assert list(partners.get("/confirmations").json()["bookings"]) == ["booking-2", "booking-3"]


def test_both_partners_forget_on_request(partners: Partners) -> None:
    for _ in range(2):
        deliver(partners)
        confirm(partners)

    assert partners.delete("/received").status_code == 204

    assert remembered(partners) == NOTHING
    set_knobs(partners, refuse_skus=["ROOM"])
    assert confirm(partners).status_code == 422  # the key was forgotten too


def test_a_knob_that_is_left_out_is_reset_and_an_unknown_or_impossible_one_is_refused(partners: Partners) -> None:
    set_knobs(partners, outage=True)
    set_knobs(partners, refuse_skus=["ROOM"])

    for knobs in ({"garble": True}, {"error_rate": 1.1}, {"error_rate": "1"}, {"latency_seconds": -1}):
        assert partners.put("/knobs", json=knobs).status_code == 400

    defaults = {"latency_seconds": 0, "error_rate": 0, "refuse_skus": [], "outage": False, "late_rate": 0}
    defaults |= {"late_seconds": 30}
    services = dict.fromkeys(("inventory", "pricing", "payment"), defaults)
    assert partners.get("/knobs").json() == defaults | {"refuse_skus": ["ROOM"]} | services


def test_a_partner_that_fails_has_not_seen_the_request(partners: Partners) -> None:
    set_knobs(partners, error_rate=1)
    failed = [confirm(partners), deliver(partners)]
    set_knobs(partners, outage=True)
    unavailable = [confirm(partners), deliver(partners)]
    set_knobs(partners)

    assert [response.status_code for response in failed] == [500, 500]
    assert [(response.status_code, response.headers["Retry-After"]) for response in unavailable] == [(503, "1")] * 2
    assert remembered(partners) == NOTHING
    assert (confirm(partners).status_code, deliver(partners).status_code) == (200, 204)


def test_the_error_rate_is_the_share_of_requests_that_fail(partners: Partners) -> None:
    set_knobs(partners, error_rate=0.25)

    assert 80 <= sum(confirm(partners).status_code == 500 for _ in range(400)) <= 120


def test_latency_delays_both_partners(partners: Partners) -> None:
    set_knobs(partners, latency_seconds=0.1)

    for request in (confirm, deliver):
        began = time.monotonic()
        assert request(partners).is_success
        assert time.monotonic() - began >= 0.1


def test_a_port_that_is_taken_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Server, "serve", lambda _: pytest.fail("The port is shared."))
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["partners", "--port", str(port)])
        with pytest.raises(SystemExit):
            app.main()

    assert f"port {port} can't be used" in capsys.readouterr().err


def test_the_demo_delivers_to_the_partner_with_the_secret_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTNERS_PORT", "8123")
    path = ROOT / "examples" / "partners" / "routes.toml"

    log, feed, partner = routes_file.load(path)

    assert feed.url == "feed:"

    assert (log.url, partner.url, partner.secret) == ("log:", "http://127.0.0.1:8123/webhooks", (DEMO_SECRET,))
    assert partner.events == ("booking.*",)
