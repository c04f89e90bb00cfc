"""Lists that take long: they delay each other, and nobody else."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import text

from api.bulkheads import BULKHEADS
from tests.support.api_process import Served
from tests.support.builders import Db, a_hold, an_item
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]

LISTS = BULKHEADS["lists"]

Lists = Sequence[Future[httpx.Response]]

#: An answer comes within this time after it could, on a machine however busy.
SLACK_SECONDS = 5.0

#: The processes of PostgreSQL that wait for a lock.
WAITING = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@contextmanager
def hanging_lists(db: Db, ask: Callable[[], Lists]) -> Iterator[Lists]:
    """Ask for lists that hang: their processes of PostgreSQL are frozen until the block ends."""
    processes: Sequence[int] = []

    def are_waiting() -> bool:
        nonlocal processes
        with db.begin() as session:
            processes = session.execute(WAITING).scalars().all()
        return len(processes) == LISTS.threads

    with db.begin() as locking:
        locking.execute(text("LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE"))
        lists = ask()
        wait_until("the lists wait for a table", are_waiting)
        for process in processes:
            os.kill(process, signal.SIGSTOP)
    try:
        yield lists
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_six_slow_lists_delay_neither_changes_nor_probes(served: Served, db: Db) -> None:
    item = an_item(db, quantity=100)
    holds = [a_hold(db, item).id for _ in range(20)]
    client = served.client

    def change(hold: object, to: str) -> httpx.Response:
        return client.post(f"/reservations/{hold}/{to}")

    def listed(sender: str) -> httpx.Response:
        return client.get("/reservations", headers={"X-Client-Id": sender})

    with ThreadPoolExecutor(6) as threads:
        with hanging_lists(db, lambda: [threads.submit(listed, sender) for sender in "aabbcc"]) as lists:
            changed = [change(hold, "confirm").status_code for hold in holds[:10]]
            changed += [change(hold, "cancel").status_code for hold in holds]
            probed = [client.get(path).status_code for path in ("/health/live", "/health/ready", "/metrics")]
            got = client.get(f"/reservations/{holds[0]}").status_code
            made = client.post("/reservations", json={"item_id": item.id, "quantity": 1}).status_code
            hung = sum(not one.done() for one in lists)
            answers = [one.result() for one in lists]

    assert (changed, probed, got, made) == ([200] * 30, [200] * 3, 200, 201)
    # All that was served while the lists were slow.
    assert hung >= LISTS.threads
    assert {answer.status_code for answer in answers} == {503}
    kinds = [answer.json()["type"].rpartition("/")[2] for answer in answers]
    assert (kinds.count("busy"), kinds.count("database-unavailable")) == (6 - LISTS.threads, LISTS.threads)
    waited = [one.elapsed.total_seconds() for one, kind in zip(answers, kinds, strict=True) if kind == "busy"]
    assert max(waited) < LISTS.wait_seconds + SLACK_SECONDS
    assert client.get("/reservations").status_code == 200
    assert [fault for fault in served.faults() if "database.hangs" not in fault] == []
