"""The consumer of docs/consuming.md, delivered to for real: each event has its effect once, whatever happens."""

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
from domain.items.table import Item
from domain.outbox.table import outbox
from domain.reservations import Change
from domain.reservations.lifecycle import Status
from domain.runtime.settings import ROOT
from examples.consumer import TABLES, receive
from tests.support.builders import Db, a_request, an_item, reserve, wait_until
from tests.support.outbox import an_aggregate, draining, promised, rows, standing, time_passes
from tests.support.servers import Heard, Server, a_server, saying, sending
from tests.worker.sinks.test_webhook import SECRET, a_webhook
from worker.relay.relay import Drain

OTHER_SECRET = "whsec_YW5vdGhlciBzZWNyZXQsIGtub3duIHRvIGV2ZXJ5b25l"
THIRD_SECRET = "whsec_dGhlIHNlY3JldCBvZiBhIHBlcmZlY3Qgc3RyYW5nZXI="

#: More rounds than a row has attempts.
ROUNDS = 20

Trouble = Callable[["Shop", BaseHTTPRequestHandler, Heard], None]


@dataclass
class Shop:
    """The consumer, with a database of its own. Its next deliveries meet these troubles, one each."""

    url: str
    secret: str = SECRET
    troubles: list[Trouble] = field(default_factory=list)

    #: What came in, repeats included.
    heard: list[Heard] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        assert isinstance(handler.server, Server)
        self.heard.append(handler.server.heard[-1])
        trouble = self.troubles.pop(0) if self.troubles else works
        trouble(self, handler, self.heard[-1])

    def take(self, heard: Heard) -> int:
        """Do what a web framework does around the consumer: what it raises becomes 500."""
        try:
            # Closed without a commit: what it did not commit itself is gone.
            with closing(psycopg.connect(self.url)) as connection:
                return receive(connection, self.secret, heard.headers, heard.body)
        except psycopg.Error:
            return 500

    def sold(self, sku: str) -> int:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT units FROM sold WHERE sku = %s", [sku]).fetchone()
            return found[0] if found else 0

    def inbox(self) -> set[str]:
        with psycopg.connect(self.url) as connection:
            return {str(event_id) for (event_id,) in connection.execute("SELECT event_id FROM inbox")}


def works(shop: Shop, handler: BaseHTTPRequestHandler, heard: Heard) -> None:
    saying(shop.take(heard))(handler)


def is_down(shop: Shop, handler: BaseHTTPRequestHandler, heard: Heard) -> None:
    saying(503)(handler)


def crashes_after_its_commit(shop: Shop, handler: BaseHTTPRequestHandler, heard: Heard) -> None:
    assert shop.take(heard) == 204
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
def drain(db: Db, shop: Shop) -> Iterator[Drain]:
    """A drain that delivers to the shop by signed webhooks, one at a time."""
    with a_server() as server:
        server.answer = shop.answer
        with draining(db, a_webhook(server.url, secret=SECRET, concurrency=1), url=server.url) as drain:
            yield drain


def confirmed(db: Db, item: Item, *quantities: int) -> None:
    """Reserve so much, in one reservation each, and confirm all of them."""
    reserve(db, *(a_request(item, quantity) for quantity in quantities))
    with db.begin() as session:
        held = reservations.find(session, reservations.Filter(item_id=item.id, status=Status.PENDING), limit=100)
        reservations.transition(session, [Change(of=one, to=Status.CONFIRMED) for one in held])


def delivered(drain: Drain) -> None:
    """Drain, and let time pass, until everything is delivered."""
    for _ in range(ROUNDS):
        drain.run()
        if set(standing(drain.db)) == {"processed"}:
            return
        time_passes(drain.db)
    raise AssertionError(standing(drain.db))


#: What waits for a lock in the shop's database.
BLOCKED = "FROM pg_stat_activity WHERE datname = 'consumer' AND wait_event_type = 'Lock'"


def blocked(shop: Shop) -> int:
    with psycopg.connect(shop.url) as connection:
        counted = connection.execute(f"SELECT count(*) {BLOCKED}").fetchone()
        return counted[0] if counted else 0


def crash(shop: Shop) -> None:
    """Cut the connection of whoever waits for a lock, as the end of its process would."""
    with psycopg.connect(shop.url) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {BLOCKED}")


def test_the_document_shows_the_consumer_that_is_tested_here() -> None:
    document = (ROOT / "docs" / "consuming.md").read_text()

    assert f"```python\n{(ROOT / 'examples' / 'consumer.py').read_text()}```" in document


def test_repeats_have_no_second_effect(drain: Drain, shop: Shop) -> None:
    item = an_item(drain.db)
    confirmed(drain.db, item, 1, 2, 3)
    shop.troubles = [crashes_after_its_commit, is_down, works] * 7

    delivered(drain)

    recorded = rows(drain.db)
    assert shop.sold(item.sku) == 6
    assert shop.inbox() == {str(one.event_id) for one in recorded}
    assert len(recorded) == 9 and len(shop.heard) > 9


def test_a_consumer_that_crashes_in_the_midst_of_an_effect_has_it_once_in_the_end(drain: Drain, shop: Shop) -> None:
    item = an_item(drain.db)
    confirmed(drain.db, item, 1)
    delivered(drain)
    confirmed(drain.db, item, 2)
    last = rows(drain.db)[-1]

    with psycopg.connect(shop.url) as keeper, ThreadPoolExecutor(1) as elsewhere:
        keeper.execute("SELECT * FROM sold FOR UPDATE")
        running = elsewhere.submit(drain.run)
        wait_until(lambda: blocked(shop) == 1)
        crash(shop)
        running.result()

    assert last.type == "booking.confirmed" and str(last.event_id) not in shop.inbox()
    assert shop.sold(item.sku) == 1
    delivered(drain)
    assert str(last.event_id) in shop.inbox()
    assert shop.sold(item.sku) == 3


def test_two_deliveries_of_one_event_at_the_same_time_have_one_effect(drain: Drain, shop: Shop) -> None:
    item = an_item(drain.db)
    confirmed(drain.db, item, 1)
    delivered(drain)
    confirmed(drain.db, item, 2)
    shop.troubles = [works, works, is_down]
    drain.run()

    with psycopg.connect(shop.url) as keeper, ThreadPoolExecutor(2) as twins:
        keeper.execute("SELECT * FROM sold FOR UPDATE")
        answers = [twins.submit(shop.take, shop.heard[-1]) for _ in range(2)]
        wait_until(lambda: blocked(shop) == 2)
        keeper.rollback()
        assert [answer.result() for answer in answers] == [204, 204]

    assert shop.sold(item.sku) == 3


def test_a_replay_is_a_repeat(drain: Drain, shop: Shop) -> None:
    item = an_item(drain.db)
    confirmed(drain.db, item, 1)
    delivered(drain)
    with drain.db.begin() as session:
        again = {"processed_at": None, "replayed_at": func.now(), "headers": {"replayed": "true"}}
        session.execute(update(outbox).values(again))

    delivered(drain)

    assert len(shop.heard) == 6
    assert shop.sold(item.sku) == 1


@pytest.mark.parametrize(
    "forge",
    [
        lambda heard: replace(heard, body=heard.body.replace(b'"quantity": 1', b'"quantity": 9')),
        lambda heard: replace(heard, headers={**heard.headers, "webhook-id": "another"}),
        lambda heard: replace(heard, headers={**heard.headers, "webhook-timestamp": "1577836800"}),
        lambda heard: replace(heard, headers={**heard.headers, "webhook-signature": "v1,???"}),
        lambda heard: replace(heard, headers={}),
        lambda heard: replace(heard, body=b"\xff"),
    ],
)
def test_what_is_forged_or_old_is_refused_and_has_no_effect(
    drain: Drain, shop: Shop, forge: Callable[[Heard], Heard]
) -> None:
    item = an_item(drain.db)
    confirmed(drain.db, item, 1)
    shop.troubles = [is_down]
    drain.run()
    (heard,) = shop.heard

    assert shop.take(forge(heard)) == 401

    assert shop.inbox() == set()
    assert shop.take(heard) == 204


@pytest.mark.parametrize(("known", "answer"), [(SECRET, 204), (OTHER_SECRET, 204), (THIRD_SECRET, 401)])
def test_while_secrets_change_a_consumer_may_know_either(db: Db, shop: Shop, known: str, answer: int) -> None:
    shop.secret = known
    with a_server() as server:
        server.answer = shop.answer
        webhook = a_webhook(server.url, secret=(OTHER_SECRET, SECRET), concurrency=1)
        with draining(db, webhook, url=server.url) as drain:
            promised(drain.db, an_aggregate())
            drain.run()

            assert standing(drain.db) == ["processed" if answer == 204 else "dead"]
