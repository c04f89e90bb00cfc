"""The API while its database hangs: every request is answered, and none is committed that was answered otherwise."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psycopg
import pytest

from api.bulkheads import BULKHEADS
from api.group_commit import QUEUE_SECONDS
from api.group_commit.writers import COMMIT_SECONDS
from deploy.embedded import PostgreSQL
from domain.runtime.database import CONNECT_TIMEOUT_SECONDS
from domain.runtime.settings import ROOT, Settings
from tests.conformance.proxy import Answers
from tests.support.api_process import Served, serving
from tests.support.lossy_proxy import LossyProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]

#: A connection that hangs is cut off a little later than it should be.
CUT_FACTOR = 1.1

#: An answer comes within this time after it could, on a machine however busy.
SLACK_SECONDS = 5.0

#: A request waits in a queue, and then in flight until its connection is cut off.
RESERVING_SECONDS = QUEUE_SECONDS + CUT_FACTOR * COMMIT_SECONDS + SLACK_SECONDS

#: A request waits for a thread, for the trial of its connection, and for another connection, which is used as well.
CHANGING_SECONDS = (
    BULKHEADS["changes"].wait_seconds
    + 2 * CUT_FACTOR * BULKHEADS["changes"].transaction_seconds
    + CONNECT_TIMEOUT_SECONDS
    + SLACK_SECONDS
)


@dataclass
class Environment:
    """An API with a database of its own, which it reaches through a proxy."""

    url: str
    proxy: LossyProxy
    served: Served

    def post(self, path: str, key: str, **body: object) -> httpx.Response:
        return self.served.client.post(path, json=body, headers={"Idempotency-Key": key})

    def reserve(self, key: str) -> httpx.Response:
        return self.post("/reservations", key, item_id=1, quantity=1)

    def statuses(self) -> tuple[int, int]:
        """Return the statuses of liveness and readiness."""
        live, ready = (self.served.client.get(f"/health/{kind}") for kind in ("live", "ready"))
        return live.status_code, ready.status_code

    def made(self, key: str) -> int:
        """Return how many reservations were made with this key."""
        return int(self.query("SELECT count(*) FROM reservations WHERE idempotency_key = %s", key)[0])

    def backend_of_the_writer(self) -> int:
        """Return the process of PostgreSQL that has just committed a reservation."""
        self.reserve("last").raise_for_status()
        return int(
            self.query(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
                " ORDER BY state_change DESC LIMIT 1",
                "holdfast",
            )[0]
        )

    def is_running(self, backend: int) -> bool:
        return bool(self.query("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", backend)[0])

    def query(self, statement: str, *parameters: object) -> psycopg.rows.TupleRow:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(statement, parameters).fetchone()
            assert row is not None
            return row


@pytest.fixture(scope="module")
def environment(settings: Settings, postgresql: PostgreSQL) -> Iterator[Environment]:
    url = postgresql.create("hung")
    subprocess.run([ROOT / "bin" / "migrate"], env=os.environ | {"DATABASE_URL": url}, check=True, capture_output=True)
    proxy = LossyProxy(url)
    with serving(DATABASE_URL=proxy.url) as served:
        served.client.post("/items", json={"sku": "A", "name": "A", "available_quantity": 1_000}).raise_for_status()
        yield Environment(url, proxy, served)
        assert "Traceback" not in served.log.read_text()
    proxy.close()


@contextmanager
def frozen(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the last part of the problem's type."""
    assert int(answer.headers["Retry-After"]) > 0
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def seconds(answer: Future[httpx.Response]) -> float:
    return answer.result().elapsed.total_seconds()


def test_a_request_that_a_frozen_backend_has_got_is_given_up_and_never_committed(environment: Environment) -> None:
    backend = environment.backend_of_the_writer()

    with ThreadPoolExecutor(5) as threads:
        with frozen(backend):
            in_flight = threads.submit(environment.reserve, "in-flight")
            wait_until("readiness says that the database hangs", lambda: environment.statuses() == (200, 503))
            queued = [threads.submit(environment.reserve, f"queued-{number}") for number in range(3)]
            hung = [in_flight.done(), *(one.done() for one in queued)]
            given_up = in_flight.result()
            wait_until("readiness says that it does not any more", lambda: environment.statuses() == (200, 200))
            others = [one.result() for one in queued]
            served = environment.reserve("served")
        # Only now does the backend read what it was sent.
        wait_until("the backend has ended", lambda: not environment.is_running(backend))

    assert hung == [False] * 4
    assert problem(given_up) == (503, "database-unavailable")
    assert seconds(in_flight) < RESERVING_SECONDS
    # Those that were queued are decided on another connection, if their time has not passed.
    assert {other.status_code for other in others} <= {201, 503}
    assert served.status_code == 201
    assert environment.made("in-flight") == 0
    again = environment.reserve("in-flight")
    assert (again.status_code, "Idempotency-Replayed" in again.headers) == (201, False)


def test_a_commit_that_is_not_answered_has_an_unknown_outcome_and_is_not_repeated(environment: Environment) -> None:
    hold = environment.reserve("to be confirmed").headers["Location"]
    environment.proxy.lose(Answers.SILENCE, 2)

    with ThreadPoolExecutor(2) as threads:
        reserved = threads.submit(environment.reserve, "lost")
        confirmed = threads.submit(environment.post, f"{hold}/confirm", "lost")
        unknown = [problem(reserved.result()), problem(confirmed.result())]

    assert unknown == [(503, "outcome-unknown")] * 2
    assert seconds(reserved) < RESERVING_SECONDS
    assert seconds(confirmed) < CHANGING_SECONDS
    again = [environment.reserve("lost"), environment.post(f"{hold}/confirm", "lost")]
    assert [(one.status_code, one.headers["Idempotency-Replayed"]) for one in again] == [(201, "true"), (200, "true")]
    assert (environment.made("lost"), again[1].json()["version"]) == (1, 2)


def test_while_the_database_answers_nothing_every_request_is_answered(environment: Environment) -> None:
    hold = environment.reserve("hold").headers["Location"]
    client = environment.served.client

    environment.proxy.answers = Answers.SILENCE
    with ThreadPoolExecutor(10) as threads:
        reserved = threads.submit(environment.reserve, "nothing")
        changed = [
            threads.submit(environment.post, f"{hold}/confirm", "nothing"),
            threads.submit(environment.post, f"{hold}/cancel", "nothing"),
            threads.submit(client.get, hold),
            threads.submit(client.get, "/reservations"),
        ]
        began = time.monotonic()
        statuses = environment.statuses()
        probed = time.monotonic() - began
        answers = [one.result() for one in (reserved, *changed)]
    environment.proxy.answers = Answers.PASS

    assert statuses == (200, 503)
    assert {problem(answer) for answer in answers} <= {(503, "database-unavailable"), (503, "busy")}
    assert seconds(reserved) < RESERVING_SECONDS
    assert max(map(seconds, changed)) < CHANGING_SECONDS
    assert probed < CHANGING_SECONDS
    wait_until("readiness recovers", lambda: environment.statuses() == (200, 200))
    assert environment.made("nothing") == 0
    assert environment.reserve("nothing").status_code == 201
    assert environment.post(f"{hold}/confirm", "nothing").status_code == 200
    assert client.get("/reservations").status_code == 200
