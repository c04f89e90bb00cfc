"""Keys are rotated and guests forgotten while all runs, by commands that are killed and repeated."""

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

import httpx
from sqlalchemy import func, select

from domain.privacy import Keyring, open_guest
from domain.privacy.encryption import SealedGuest
from domain.privacy.guests import COLUMNS, count_by_key
from domain.privacy.table import guests
from domain.reservations.table import reservations
from domain.runtime.settings import ROOT
from tests.domain.privacy.people import keyring, many_guests, written
from tests.proofs.checker import check_invariants
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.support.waiting import PATIENCE_SECONDS, wait_until

#: More than a rotation takes in the time until it is killed.
GUESTS = 20_000

#: How often a command is killed before it may end.
KILLS = 4

AGENCY = "agency@example.com"


class Users:
    """Clients that make reservations with guests, change the guests and read them, and note what is not as it was.

    `names` has the name that each reservation's guest was given last.
    """

    def __init__(self, cluster: Cluster, port: int, seed: int) -> None:
        self.names: dict[str, str] = {}
        self.faults: list[str] = []
        self._sku = cluster.an_item(1_000_000).sku
        self._url = f"http://127.0.0.1:{port}"
        self._seed = seed
        self._stopping = threading.Event()
        self._numbers = itertools.count()

    @contextmanager
    def active(self) -> Iterator[None]:
        with ThreadPoolExecutor(3) as threads:
            running = [threads.submit(self._run, Random(self._seed + n)) for n in range(3)]
            try:
                yield
            finally:
                self._stopping.set()
            for one in running:
                one.result()

    def _run(self, random: Random) -> None:
        own: list[str] = []
        with httpx.Client(base_url=self._url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
            while not self._stopping.is_set():
                if not own or random.random() < 0.4:
                    own.append(self._make(client))
                elif random.random() < 0.5:
                    self._change(client, random.choice(own))
                else:
                    self._read(client, random.choice(own))

    def _make(self, client: httpx.Client) -> str:
        name = f"Guest {next(self._numbers)}"
        guest = {"name": name, "email": AGENCY}
        made = client.post("/reservations", json={"sku": self._sku, "quantity": 1, "guest": guest})
        self._expect(made, 201)
        reservation: str = made.json()["id"]
        self.names[reservation] = name
        return reservation

    def _change(self, client: httpx.Client, reservation: str) -> None:
        name = f"Guest {next(self._numbers)}"
        changed = client.put(f"/reservations/{reservation}/guest", json={"name": name, "email": AGENCY})
        # A batch of a rotation may have it locked.
        self._expect(changed, 200, 410, 503)
        if changed.status_code == 200:
            self.names[reservation] = name

    def _read(self, client: httpx.Client, reservation: str) -> None:
        shown = client.get(f"/reservations/{reservation}/guest")
        self._expect(shown, 200, 410)
        if shown.status_code == 200 and shown.json()["name"] != self.names[reservation]:
            self.faults.append(f"{reservation} shows {shown.json()['name']}, not {self.names[reservation]}")

    def _expect(self, answer: httpx.Response, *statuses: int) -> None:
        if answer.status_code not in statuses:
            self.faults.append(f"{answer.request.method} {answer.request.url.path}: {answer.text}")


def test_a_rotation_that_is_killed_again_and_again_beside_users_loses_nobody(open_cluster: Open, seed: int) -> None:
    cluster = open_cluster(PII_KEYS=written("new", "old"))
    many_guests(cluster.db, keyring("old"), GUESTS)
    cluster.worker()
    users = Users(cluster, cluster.api().ready().port, seed)

    with users.active():
        for _ in range(KILLS):
            rotate_and_kill(cluster)
        # Two at once share the rest. One of them may be done before the other one begins.
        last = [cluster.start("rotation", "bin/rotate-keys", "--json") for _ in range(2)]
        assert [one.popen.wait(PATIENCE_SECONDS) for one in last] == [0, 0], [one.log.read_text() for one in last]

    assert users.faults == []
    assert counted(cluster) == {"new": GUESTS + len(users.names)}
    stored = people(cluster, keyring("new"))
    assert {reservation: stored[reservation] for reservation in users.names} == users.names
    check_invariants(cluster)


def test_forgetting_that_is_killed_beside_users_and_a_rotation_leaves_everybody_whole_or_gone(
    open_cluster: Open, seed: int
) -> None:
    cluster = open_cluster(PII_KEYS=written("new", "old"))
    many_guests(cluster.db, keyring("old"), GUESTS, email=AGENCY)
    cluster.worker()
    users = Users(cluster, cluster.api().ready().port, seed)
    before = history(cluster)

    with users.active():
        for _ in range(KILLS):
            forget_and_kill(cluster)
    codes = [forget(cluster).wait(PATIENCE_SECONDS) for _ in range(2)]
    rotated = cluster.start("rotation", "bin/rotate-keys")
    assert rotated.popen.wait(PATIENCE_SECONDS) == 0, rotated.log.read_text()

    assert users.faults == []
    # The second one finds nobody.
    assert codes == [0, 1]
    assert counted(cluster) == {}
    with cluster.db.begin() as session:
        rows = session.execute(select(func.count()).select_from(guests)).scalar_one()
    assert rows == GUESTS + len(users.names)
    assert {one: number for one, number in history(cluster).items() if one in before} == before
    check_invariants(cluster)


def rotate_and_kill(cluster: Cluster) -> None:
    """Kill a rotation that has rotated some, and not all."""
    before = left(cluster)
    rotation = cluster.start("rotation", "bin/rotate-keys")
    wait_until("some are rotated", lambda: left(cluster) < before)
    rotation.kill()
    assert left(cluster) > 0, "it was killed too late: take more guests"


def forget_and_kill(cluster: Cluster) -> None:
    """Kill a command that has forgotten some, and not all, and a rotation beside it."""
    known = sum(counted(cluster).values())
    forgetting, rotation = forget(cluster), cluster.start("rotation", "bin/rotate-keys")
    wait_until("some are forgotten", lambda: sum(counted(cluster).values()) < known)
    os.killpg(forgetting.pid, signal.SIGKILL)
    forgetting.wait(PATIENCE_SECONDS)
    rotation.kill()
    assert counted(cluster), "it was killed too late: take more guests"


def left(cluster: Cluster) -> int:
    """Return how many guests still have the old key."""
    return counted(cluster).get("old", 0)


def counted(cluster: Cluster) -> dict[str, int]:
    with cluster.db.begin() as session:
        return dict(count_by_key(session))


def people(cluster: Cluster, keys: Keyring) -> dict[str, str]:
    """Return the name of each guest, by reservation. All of them can be read by these keys."""
    with cluster.db.begin() as session:
        rows = session.execute(select(guests.c.reservation_id, *(guests.c[name] for name in COLUMNS))).all()
    sealed = [(str(row[0]), SealedGuest(**dict(zip(COLUMNS, row[1:], strict=True)))) for row in rows]
    return {reservation: open_guest(keys, one).name for reservation, one in sealed}


def history(cluster: Cluster) -> dict[str, tuple[Any, ...]]:
    """Return what a reservation has that forgetting its guest must not change."""
    with cluster.db.begin() as session:
        columns = reservations.c["id", "status", "version", "updated_at"]
        return {str(row.id): tuple(row) for row in session.execute(select(*columns))}


def forget(cluster: Cluster) -> "subprocess.Popen[str]":
    """Start to forget everybody with the address of the agency, which is written to standard input."""
    process = subprocess.Popen(
        [ROOT / "bin" / "forget-guest", "--email"],
        env={"PATH": os.environ["PATH"], **cluster.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin
    process.stdin.write(AGENCY)
    process.stdin.close()
    return process
