"""Workers that die while they deliver: another one continues at once, and no living worker is taken for dead."""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import text

from domain import outbox
from tests.proofs.checker import check, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.processes import Process
from tests.proofs.cluster.receiver import Receiver, a_receiver
from tests.proofs.conftest import Open
from tests.proofs.load import Load
from tests.support.waiting import wait_until

#: What a killed worker had in flight is begun again within this time, as the documentation says.
BEGUN_AGAIN_WITHIN_SECONDS = 1.0

#: The reservations that a worker has in flight, each in a lane of its own.
RESERVATIONS = 6


class Calls:
    """The calls that a receiver gets: the first one for a booking hangs until `answered` is set."""

    def __init__(self, receiver: Receiver) -> None:
        self.answered = threading.Event()
        self._begun: dict[str, list[float]] = defaultdict(list)
        receiver.delay = self._delay

    def _delay(self, event: Mapping[str, Any]) -> None:
        begun = self._begun[event["payload"]["booking_id"]]
        begun.append(time.monotonic())
        if len(begun) == 1:
            self.answered.wait()

    def begun(self, bookings: Collection[str], times: int = 1) -> Sequence[float]:
        """Return when the call of this number began for each of these bookings, or nothing if one is missing."""
        found = [self._begun[booking][times - 1] for booking in bookings if len(self._begun[booking]) >= times]
        return found if len(found) == len(bookings) else []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with a_receiver() as receiver:
        yield receiver


@pytest.fixture
def calls(receiver: Receiver) -> Iterator[Calls]:
    calls = Calls(receiver)
    yield calls
    calls.answered.set()


@pytest.fixture
def cluster(open_cluster: Open, receiver: Receiver) -> Cluster:
    """Nobody but the workers wakes them: there is no scheduler. No call ends before the proof."""
    cluster = open_cluster(receiver=receiver, concurrency=2 * RESERVATIONS, DELIVERY_TIMEOUT_SECONDS="60")
    cluster.partners.ready()
    return cluster


@pytest.mark.timed
def test_what_a_killed_worker_had_in_flight_is_begun_again_within_a_second(cluster: Cluster, calls: Calls) -> None:
    killed, in_flight = delivering(cluster, calls, range(RESERVATIONS))
    other = living(cluster, threads=RESERVATIONS)

    moment = time.monotonic()
    killed.kill()
    late = max(wait_until("all is begun again", lambda: calls.begun(in_flight, times=2))) - moment

    print(f"{len(in_flight)} in flight, the last begun again {late:.3f} s after the kill")
    assert late <= BEGUN_AGAIN_WITHIN_SECONDS
    wait_until("it is logged", lambda: other.events("worker.died"))
    ends_well(cluster, calls, repeats=len(in_flight))


@pytest.mark.timed
def test_two_workers_of_which_one_watched_the_other_are_killed_at_once_and_the_third_continues_with_both(
    cluster: Cluster, calls: Calls
) -> None:
    """Each of three watches the next one, so one of any two is the watcher of the other."""
    both = [delivering(cluster, calls, range(first, first + RESERVATIONS)) for first in (0, RESERVATIONS)]
    killed, in_flight = [worker for worker, _ in both], [booking for _, bookings in both for booking in bookings]
    third = living(cluster, threads=2 * RESERVATIONS)

    moment = time.monotonic()
    for worker in killed:
        worker.kill()
    late = max(wait_until("all is begun again", lambda: calls.begun(in_flight, times=2))) - moment

    print(f"{len(in_flight)} in flight, the last begun again {late:.3f} s after the first kill")
    assert late <= BEGUN_AGAIN_WITHIN_SECONDS
    wait_until("it is logged", lambda: third.events("worker.died"))
    ends_well(cluster, calls, repeats=len(in_flight))


def test_workers_whose_sessions_are_ended_lose_nothing_and_show_that_they_live_again(
    open_cluster: Open, seed: int
) -> None:
    cluster = open_cluster()
    api, workers = cluster.api(), [cluster.worker(), cluster.worker()]
    cluster.scheduler()
    cluster.partners.ready()
    api.ready()
    before = wait_until("both live", lambda: live(cluster) if len(live(cluster)) == 2 else None)

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=20)
        end_sessions(cluster)
        wait_until("both have new keys", lambda: len(live(cluster) - before) == 2)
        load.wait(answers=20)
    wait_until_drained(cluster)

    assert [[len(worker.events(f"liveness.{name}")) for name in ("lost", "restored")] for worker in workers] == [
        [1, 1],
        [1, 1],
    ]
    check(cluster, answered=load.answered)
    assert not load.unexpected


def delivering(cluster: Cluster, calls: Calls, lanes: Sequence[int]) -> tuple[Process, Sequence[str]]:
    """Start a worker, and have the partner called for a reservation in each of these lanes. Return these as well.

    An earlier worker may make some of the calls.
    """
    worker = living(cluster, threads=len(lanes))
    item = cluster.an_item(len(lanes))
    made = [str(booking) for lane in lanes for booking in cluster.hold(item, lane=lane)]

    def has_begun() -> Sequence[float]:
        cluster.wake()
        return calls.begun(made)

    wait_until("it delivers", has_begun)
    return worker, made


def living(cluster: Cluster, *, threads: int) -> Process:
    """Start a worker, and wait until others see that it lives."""
    before = len(live(cluster))
    worker = cluster.worker(threads=threads)
    wait_until("it lives", lambda: len(live(cluster)) > before)
    return worker


def live(cluster: Cluster) -> frozenset[int]:
    with cluster.db.begin() as session:
        return outbox.find_liveness_keys(session).live


def end_sessions(cluster: Cluster) -> None:
    """End the sessions by which the workers show that they live."""
    with cluster.db.begin() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'holdfast-liveness' AND datname = current_database()"
            )
        )


def ends_well(cluster: Cluster, calls: Calls, *, repeats: int) -> None:
    calls.answered.set()
    wait_until_drained(cluster, skipping=True)
    assert check(cluster, repeats_at_most=repeats).attempts == 0
