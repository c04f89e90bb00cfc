"""Load on a database while it is migrated: clients that reserve, confirm, list and deliver until they are stopped.

No statement of a client waits for a lock for longer than LOCK_MILLISECONDS: PostgreSQL itself ends it with an error.
Clients do not wait for each other, since each has an item and a destination of its own.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

from domain import reservations
from domain.outbox import DELIVERED
from domain.reservations.lifecycle import Status
from domain.runtime import database
from tests.support.builders import a_hold, a_request, an_item, reserve, routes_of, some_settings
from tests.support.outbox import claimed, fetched, released, settled, with_shop
from tests.support.waiting import wait_until

#: A migration waits for 2 s for a lock, and meanwhile others wait behind it; and then it holds the lock for a moment.
LOCK_MILLISECONDS = 3_000

#: Rounds of each client before the migration, and after it. psycopg prepares a statement at its sixth execution.
ROUNDS = 10


class Client(Protocol):
    """Does everything once that a release does."""

    def do_all(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Load:
    """Clients that do everything again and again, each in a thread, and what went wrong."""

    clients: Sequence[Client]
    rounds: list[int] = field(init=False)
    errors: list[Exception] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.rounds = [0] * len(self.clients)

    def run(self, number: int) -> None:
        while not self.stopping.is_set():
            try:
                self.clients[number].do_all()
                self.rounds[number] += 1
            except Exception as error:
                self.errors.append(error)
                self.stopping.set()

    def wait_for_rounds(self) -> None:
        """Wait until each client has done everything some times more, or something went wrong."""
        enough = [done + ROUNDS for done in self.rounds]
        wait_until(
            "each client has done everything again",
            lambda: self.errors or all(done >= wanted for done, wanted in zip(self.rounds, enough, strict=True)),
        )


@contextmanager
def loaded(*clients: Client) -> Iterator[Load]:
    """Run clients before, during and after the block."""
    load = Load(clients)
    threads = [threading.Thread(target=load.run, args=[number]) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    try:
        load.wait_for_rounds()
        yield load
        load.wait_for_rounds()
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()


class ThisRelease:
    """A client whose statements are those of the present code."""

    def __init__(self, url: str) -> None:
        settings = some_settings(database_url=url)
        self._engine = database.connect(settings, connections=1, lock_milliseconds=LOCK_MILLISECONDS)
        self._name = f"shop-{uuid4().hex[:8]}"
        self._db = with_shop(database.sessions(self._engine), name=self._name)
        self._item = an_item(self._db, quantity=1_000_000)

    def do_all(self) -> None:
        hold = a_hold(self._db, self._item)
        reserve(self._db, a_request(self._item, key=uuid4().hex))
        with self._db.begin() as session:
            reservations.change(session, hold.id, Status.CONFIRMED, routes=routes_of(self._db))
        with self._db.begin() as session:
            assert reservations.find(session, reservations.Filter(item_id=self._item.id), limit=50)
        while lane := claimed(self._db, self._name):
            settled(self._db, lane, [(row, DELIVERED) for row in fetched(self._db, lane)])
            released(self._db, lane)

    def close(self) -> None:
        self._engine.dispose()
