"""The consumer of docs/consuming.md, which webhooks are delivered to: each event has its effect once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler

import psycopg
import pytest
from sqlalchemy import func, update

from deploy.embedded import PostgreSQL
from domain import reservations
from domain.items import Item
from domain.outbox.table import outbox
from domain.reservations import Change
from domain.reservations.lifecycle import Status
from domain.runtime.settings import ROOT
from examples.consumer import TABLES, receive
from tests.support.builders import Db, a_request, an_item, reserve, routes_of
from tests.support.http_server import ReceivedRequest, Server, a_server, saying, sending
from tests.support.outbox import an_aggregate, recorded_for, relaying, rows, states, time_passes
from tests.support.waiting import wait_until
from tests.worker.sinks.test_webhook import SECRET, a_webhook
from worker.relay.relay import Relay

OTHER_SECRET = "whsec_YW5vdGhlciBzZWNyZXQsIGtub3duIHRvIGV2ZXJ5b25l"
THIRD_SECRET = "whsec_dGhlIHNlY3JldCBvZiBhIHBlcmZlY3Qgc3RyYW5nZXI="

#: More runs of the relay than a row has attempts.
ROUNDS = 20

Fault = Callable[["Shop", BaseHTTPRequestHandler, ReceivedRequest], None]


@dataclass
class Shop:
    """The consumer, with a database of its own. Each of its next deliveries meets one of `faults`."""

    url: str
    secret: str = SECRET
    faults: list[Fault] = field(default_factory=list)

    #: All requests that arrived, with repeats.
    requests: list[ReceivedRequest] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        assert isinstance(handler.server, Server)
        self.requests.append(handler.server.requests[-1])
        fault = self.faults.pop(0) if self.faults else works
        fault(self, handler, self.requests[-1])

    def take(self, request: ReceivedRequest) -> int:
        """Call the consumer as a web framework does: an exception becomes 500."""
        try:
            # Closing without a commit loses everything that the consumer has not committed itself.
            with closing(psycopg.connect(self.url)) as connection:
                return receive(connection, self.secret, request.headers, request.body)
        except psycopg.Error:
            return 500

    def sold(self, sku: str) -> int:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT units FROM sold WHERE sku = %s", [sku]).fetchone()
            return found[0] if found else 0

    def inbox(self) -> set[str]:
        with psycopg.connect(self.url) as connection:
            return {str(event_id) for (event_id,) in connection.execute("SELECT event_id FROM inbox")}


def works(shop: Shop, handler: BaseHTTPRequestHandler, request: ReceivedRequest) -> None:
    saying(shop.take(request))(handler)


def is_down(shop: Shop, handler: BaseHTTPRequestHandler, request: ReceivedRequest) -> None:
    saying(503)(handler)


def crashes_after_its_commit(shop: Shop, handler: BaseHTTPRequestHandler, request: ReceivedRequest) -> None:
    assert shop.take(request) == 204
    sending(b"")(handler)


@pytest.fixture
def shop(postgresql: PostgreSQL) -> Iterator[Shop]:
    url = postgresql.create("consumer")
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)
    yield Shop(url)
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE inbox, sold")


@pytest.fixture
def relay(db: Db, shop: Shop) -> Iterator[Relay]:
    """A relay that delivers to the shop by signed webhooks, one at a time."""
    with a_server() as server:
        server.answer = shop.answer
        with relaying(db, a_webhook(server.url, secret=SECRET, concurrency=1), url=server.url) as relay:
            yield relay


def confirmed(db: Db, item: Item, *quantities: int) -> None:
    """Reserve these quantities, in one reservation each, and confirm all of them."""
    reserve(db, *(a_request(item, quantity) for quantity in quantities))
    with db.begin() as session:
        wanted = reservations.Filter(item_id=item.id, status=Status.PENDING)
        held = reservations.find(session, wanted, limit=100).reservations
        reservations.transition(session, [Change(of=one, to=Status.CONFIRMED) for one in held], routes_of(db))


def delivered(relay: Relay) -> None:
    """Run the relay, and let time pass, until everything is delivered."""
    for _ in range(ROUNDS):
        relay.run()
        if set(states(relay.db)) == {"processed"}:
            return
        time_passes(relay.db)
    raise AssertionError(states(relay.db))


#: The connections that wait for a lock in the shop's database.
BLOCKED = "FROM pg_stat_activity WHERE datname = 'consumer' AND wait_event_type = 'Lock'"


def blocked(shop: Shop) -> int:
    with psycopg.connect(shop.url) as connection:
        counted = connection.execute(f"SELECT count(*) {BLOCKED}").fetchone()
        return counted[0] if counted else 0


def crash(shop: Shop) -> None:
    """End the connections that wait for a lock, as if their process had crashed."""
    with psycopg.connect(shop.url) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {BLOCKED}")


def test_the_document_shows_the_consumer_under_test() -> None:
    document = (ROOT / "docs" / "consuming.md").read_text()

    assert f"```python\n{(ROOT / 'examples' / 'consumer.py').read_text()}```" in document


def test_repeats_have_no_second_effect(relay: Relay, shop: Shop) -> None:
    item = an_item(relay.db)
    confirmed(relay.db, item, 1, 2, 3)
    shop.faults = [crashes_after_its_commit, is_down, works] * 7

    delivered(relay)

    recorded = rows(relay.db)
    assert shop.sold(item.sku) == 6
    assert shop.inbox() == {str(one.event_id) for one in recorded}
    assert len(recorded) == 9 and len(shop.requests) > 9


def test_an_effect_that_a_crash_interrupts_happens_once_in_the_end(relay: Relay, shop: Shop) -> None:
    item = an_item(relay.db)
    confirmed(relay.db, item, 1)
    delivered(relay)
    confirmed(relay.db, item, 2)
    last = rows(relay.db)[-1]

    with psycopg.connect(shop.url) as keeper, ThreadPoolExecutor(1) as elsewhere:
        keeper.execute("SELECT * FROM sold FOR UPDATE")
        running = elsewhere.submit(relay.run)
        wait_until("the delivery waits for a lock", lambda: blocked(shop) == 1)
        crash(shop)
        running.result()

    assert last.type == "booking.confirmed" and str(last.event_id) not in shop.inbox()
    assert shop.sold(item.sku) == 1
    delivered(relay)
    assert str(last.event_id) in shop.inbox()
    assert shop.sold(item.sku) == 3


def test_two_deliveries_of_one_event_at_the_same_time_have_one_effect(relay: Relay, shop: Shop) -> None:
    item = an_item(relay.db)
    confirmed(relay.db, item, 1)
    delivered(relay)
    confirmed(relay.db, item, 2)
    shop.faults = [works, works, is_down]
    relay.run()

    with psycopg.connect(shop.url) as keeper, ThreadPoolExecutor(2) as duplicates:
        keeper.execute("SELECT * FROM sold FOR UPDATE")
        answers = [duplicates.submit(shop.take, shop.requests[-1]) for _ in range(2)]
        wait_until("both deliveries wait for a lock", lambda: blocked(shop) == 2)
        keeper.rollback()
        assert [answer.result() for answer in answers] == [204, 204]

    assert shop.sold(item.sku) == 3


def test_a_replay_is_a_repeat(relay: Relay, shop: Shop) -> None:
    item = an_item(relay.db)
    confirmed(relay.db, item, 1)
    delivered(relay)
    with relay.db.begin() as session:
        again = {"processed_at": None, "replayed_at": func.now(), "headers": {"replayed": "true"}}
        session.execute(update(outbox).values(again))

    delivered(relay)

    assert len(shop.requests) == 6
    assert shop.sold(item.sku) == 1


@pytest.mark.parametrize(
    "forge",
    [
        lambda request: replace(request, body=request.body.replace(b'"quantity": 1', b'"quantity": 9')),
        lambda request: replace(request, headers={**request.headers, "webhook-id": "another"}),
        lambda request: replace(request, headers={**request.headers, "webhook-timestamp": "1577836800"}),
        lambda request: replace(request, headers={**request.headers, "webhook-signature": "v1,???"}),
        lambda request: replace(request, headers={}),
        lambda request: replace(request, body=b"\xff"),
    ],
)
def test_a_forged_or_old_delivery_is_refused_and_has_no_effect(
    relay: Relay, shop: Shop, forge: Callable[[ReceivedRequest], ReceivedRequest]
) -> None:
    item = an_item(relay.db)
    confirmed(relay.db, item, 1)
    shop.faults = [is_down]
    relay.run()
    (request,) = shop.requests

    assert shop.take(forge(request)) == 401

    assert shop.inbox() == set()
    assert shop.take(request) == 204


@pytest.mark.parametrize(("known", "answer"), [(SECRET, 204), (OTHER_SECRET, 204), (THIRD_SECRET, 401)])
def test_while_secrets_change_a_consumer_may_know_either_of_them(db: Db, shop: Shop, known: str, answer: int) -> None:
    shop.secret = known
    with a_server() as server:
        server.answer = shop.answer
        webhook = a_webhook(server.url, secret=(OTHER_SECRET, SECRET), concurrency=1)
        with relaying(db, webhook, url=server.url) as relay:
            recorded_for(relay.db, an_aggregate())
            relay.run()

            assert states(relay.db) == ["processed" if answer == 204 else "waiting"]
