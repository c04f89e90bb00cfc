"""Personal data shows up where it is asked for, and nowhere else: in no table, no file, no log and no other answer."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import psycopg
from sqlalchemy import func, select

from api.bookings.fields import GUEST_FIELDS
from deploy.embedded import PostgreSQL
from domain.outbox.table import outbox
from domain.runtime.settings import ROOT
from tests.api.bookings.conftest import BOOKINGS
from tests.domain.privacy.people import written
from tests.proofs import canary
from tests.proofs.canary import GUEST, WORDS, dumped, forms, leaks
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.receiver import Receiver, a_receiver
from tests.proofs.conftest import Open, a_postgresql
from tests.support.commands import bare
from tests.support.ports import free_port
from tests.support.waiting import wait_until

#: A guest that is refused, each for another field.
REFUSED: list[Any] = [
    {**GUEST, "name": GUEST["name"] + "\0"},
    {**GUEST, "name": GUEST["name"] * 30},
    {**GUEST, "email": GUEST["email"].replace("@", " ")},
    {**GUEST, "email": GUEST["email"] * 500},
    {**GUEST, "telephone": GUEST["telephone"] + "\x1b[2J"},
    {**GUEST, "special_requests": "\u202e" + GUEST["special_requests"]},
    {**GUEST, "age": GUEST["name"]},
    {"email": GUEST["email"]},
    {"name": [GUEST["name"]]},
    GUEST["name"],
]

#: A webhook refuses the events of reservations of so many units for good.
REFUSED_QUANTITY = 7

#: No guest can be stored then: PostgreSQL refuses the row, and says which one.
BREAK = "ALTER TABLE guests ADD CONSTRAINT broken CHECK (octet_length(name) = 0) NOT VALID"
MEND = "ALTER TABLE guests DROP CONSTRAINT broken"


def test_a_canary_is_found_in_every_form() -> None:
    """Otherwise the proof below would show nothing."""
    for word in WORDS:
        for padding in ("", "x", "xy"):
            text = f"{padding}{word} and more".encode()
            assert leaks("", text), word
            assert leaks("", text.hex()), word
            assert leaks("", json.dumps(text.decode())), word
            assert leaks("", base64.b64encode(text)), (word, padding, [*forms(word)])


def test_personal_data_is_in_the_answers_about_guests_and_nowhere_else(open_cluster: Open) -> None:
    with a_postgresql() as server, a_receiver() as receiver:
        metrics = {name: str(free_port()) for name in ("WORKER_METRICS_PORT", "SCHEDULER_METRICS_PORT")}
        settings = {"LOG_LEVEL": "DEBUG", "PII_KEYS": written("new", "old"), **metrics}
        cluster = open_cluster(on=server, receiver=receiver, feed=True, max_attempts=1, **settings)
        apis = [cluster.api(), cluster.api(OTEL_TRACES_EXPORTER="console")]
        cluster.worker()
        cluster.scheduler()
        cluster.partners.ready()
        delivered = Delivered(receiver)
        seen: dict[str, str | bytes] = {}
        for number, api in enumerate(apis):
            with httpx.Client(base_url=f"http://127.0.0.1:{api.ready().port}", timeout=30, trust_env=False) as client:
                seen |= {f"API {number}: {name}": text for name, text in use(cluster, client, delivered, metrics)}
        seen |= {"webhooks": "\n".join(delivered.bodies)}
        seen |= {f"table {name}": text for name, text in dumped(cluster.environment["DATABASE_URL"]).items()}
        seen |= dict(canary.cached(cluster.redis.url))
        seen |= {f"command {name}": text for name, text in commands(cluster)}
        seen |= {"API without a database": without_a_database(cluster, server)}
        for process in cluster.started:
            process.kill()
        seen |= dict(canary.files(cluster.home, server.home))

    found = [leak for where, content in seen.items() for leak in leaks(where, content)]
    assert found == []
    # All that could have leaked was there, and was looked at.
    assert "CONTROL" in str(seen["table reservations"])
    assert any("CheckViolation" in str(text) for where, text in seen.items() if where.endswith(".log"))
    print(f"{len(seen)} places, {sum(map(len, seen.values())):,} characters")


def without_a_database(cluster: Cluster, server: PostgreSQL) -> str:
    """Stop the database, and return what is answered to a reservation with a guest."""
    server.stop()
    wanted = {"sku": "X", "quantity": 1, "guest": GUEST}
    answer = httpx.post(
        f"http://127.0.0.1:{cluster.apis[0].port}/reservations", json=wanted, timeout=30, trust_env=False
    )
    assert answer.status_code == 503, answer.text
    return answer.text


class Delivered:
    """What a webhook was sent. It refuses all events of one reservation for good."""

    def __init__(self, receiver: Receiver) -> None:
        self.bodies: list[str] = []
        receiver.rule = self._answer

    def _answer(self, event: Mapping[str, Any]) -> int:
        self.bodies.append(json.dumps(event, ensure_ascii=False))
        return 422 if event["payload"].get("quantity") == REFUSED_QUANTITY else 204


def use(
    cluster: Cluster, client: httpx.Client, delivered: Delivered, metrics: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Do all that can be done with a guest, and yield all answers but those that show one."""
    sku = cluster.an_item(100).sku
    wanted = {"sku": sku, "quantity": 1, "guest": {"id": "guest-1", **GUEST}, "note": "CONTROL"}

    def send(name: str, method: str, path: str, status: int, **given: Any) -> tuple[str, str]:
        answer = client.request(method, path, **given)
        assert answer.status_code == status, (name, answer.text)
        return name, f"{answer.headers}\n{answer.text}"

    keyed = {"Idempotency-Key": f"{sku}"}
    yield send("made", "POST", "/reservations", 201, json=wanted, headers=keyed)
    yield send("repeated", "POST", "/reservations", 201, json=wanted, headers=keyed)
    yield send("key reused", "POST", "/reservations", 409, json=wanted | {"quantity": 2}, headers=keyed)
    yield send("sold out", "POST", "/reservations", 409, json=wanted | {"quantity": 1_000})
    yield send("unknown item", "POST", "/reservations", 404, json=wanted | {"sku": "none"})
    yield send("dead letter", "POST", "/reservations", 201, json=wanted | {"quantity": REFUSED_QUANTITY})
    for number, guest in enumerate(REFUSED):
        yield send(f"refused {number}", "POST", "/reservations", 400, json=wanted | {"guest": guest})
    body = json.dumps(wanted)[:-9] + "}}"
    headers = {"Content-Type": "application/json"}
    yield send("no JSON", "POST", "/reservations", 400, content=body.encode(), headers=headers)
    made = client.get("/reservations", params={"sku": sku}).json()["reservations"][0]["id"]
    path = f"/reservations/{made}/guest"
    shown = client.get(path)
    assert shown.json() == GUEST and leaks("", shown.text)
    yield send("changed", "PUT", path, 200, json=GUEST, headers={"Idempotency-Key": f"put {sku}"})
    yield send("changed again", "PUT", path, 200, json=GUEST, headers={"Idempotency-Key": f"put {sku}"})
    yield send("not changed", "PUT", path, 400, json={**GUEST, "email": GUEST["email"].replace("@", " ")})
    yield send("found", "POST", "/guests/search", 200, json={"email": GUEST["email"]})
    yield send("found by telephone", "POST", "/guests/search", 200, json={"telephone": GUEST["telephone"]})
    yield send("no search", "POST", "/guests/search", 400, json={"telephone": "x" + GUEST["email"]})
    yield from booked(send, client, f"venue-{sku.lower()}")
    yield from broken(cluster, send, wanted, path)
    wait_until("the dead letter is there", lambda: dead(cluster))
    wait_until("the others are delivered", lambda: any(made in body for body in delivered.bodies))
    for listed in ("/reservations", f"/reservations/{made}", "/events", "/outbox/dead-letters", f"/outbox/why/{made}"):
        yield send(listed, "GET", listed, 200)
    yield send("metrics", "GET", "/metrics", 200)
    for name, port in metrics.items():
        yield name, httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


def booked(send: Callable[..., tuple[str, str]], client: httpx.Client, venue: str) -> Iterator[tuple[str, str]]:
    """Do all that can be done with the guest of a booking, and yield all answers but those that show one."""
    calendar = {"sku": venue, "name": venue, "kind": "calendar", "capacity": 9, "time_zone": "Europe/Rome"}
    price = {"amount": "30.00", "currency": "EUR"}
    yield send("venue", "POST", "/items", 201, json=calendar | {"venue": venue, "price": price})
    person = {field: GUEST[name] for name, field in GUEST_FIELDS.items()}
    terms = {"venue_id": venue, "booking_date": "2030-05-03", "booking_time": "19:30", "duration_minutes": 60}
    wanted: dict[str, Any] = {**terms, **person, "party_size": 2, "guest_id": f"guest-{venue}"}
    keyed = {"Idempotency-Key": venue}
    yield send("booked", "POST", BOOKINGS, 201, json=wanted, headers=keyed)
    yield send("booked again", "POST", BOOKINGS, 201, json=wanted, headers=keyed)
    yield send("booking, key reused", "POST", BOOKINGS, 409, json=wanted | {"party_size": 3}, headers=keyed)
    yield send("booking, not free", "POST", BOOKINGS, 409, json=wanted | {"party_size": 8})
    yield send("booking, unknown venue", "POST", BOOKINGS, 404, json=wanted | {"venue_id": "none"})
    for name, field in GUEST_FIELDS.items():
        refused = wanted | {field: GUEST[name] + "\0"}
        yield send(f"booking, refused {field}", "POST", BOOKINGS, 400, json=refused)
    (one,) = client.get(f"{BOOKINGS}/venue/{venue}").json()["bookings"]
    at = f"{BOOKINGS}/{one['id']}"
    shown = client.get(at)
    assert shown.json()["guest_name"] == GUEST["name"] and leaks("", shown.text)
    changed = {"expected_version": shown.json()["version"], **person, "guest_phone": None}
    yield send("booking changed", "PUT", at, 200, json=changed)
    yield send("booking, stale", "PUT", at, 409, json=changed)
    yield send("booking, bad e-mail", "PUT", at, 400, json=changed | {"guest_email": GUEST["email"].replace("@", " ")})
    for path in (f"{BOOKINGS}/guest/guest-{venue}", f"{BOOKINGS}/venue/{venue}", f"{at}/history"):
        yield send(path, "GET", path, 200)
    yield send("booking cancelled", "POST", f"{at}/cancel", 200)


def broken(
    cluster: Cluster, send: Callable[..., tuple[str, str]], wanted: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    """Let PostgreSQL refuse all guests, and let them wait for a lock, for a moment."""
    url = cluster.environment["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(BREAK)
        yield send("our fault", "POST", "/reservations", 500, json=wanted)
        yield send("our fault, changing", "PUT", path, 500, json=GUEST)
        connection.execute(MEND)
        with connection.transaction():
            connection.execute("LOCK TABLE guests")
            yield send("locked", "PUT", path, 503, json=GUEST)


def dead(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        return session.execute(select(func.count()).where(outbox.c.dead_at.is_not(None))).scalar_one()


def commands(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Run what operators run, and yield its output."""

    def run(name: str, *arguments: str, given: str = "") -> tuple[str, str]:
        environment = bare(cluster.environment)
        done = subprocess.run(
            [ROOT / "bin" / name, *arguments], env=environment, input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return f"{name} {arguments}", done.stdout + done.stderr

    yield run("doctor")
    yield run("dead-letters", "list")
    yield run("dead-letters", "list", "--json")
    yield run("rotate-keys")
    yield run("forget-guest", "--email", "--dry-run", given=GUEST["email"])
    yield run("forget-guest", "--telephone", "--json", given=GUEST["telephone"])
