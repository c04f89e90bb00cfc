"""Liveness: a process has a lock by which others see that it lives, and none of its troubles stops a delivery."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, make_url, select, text
from structlog.testing import capture_logs

from deploy.embedded import PostgreSQL
from domain import outbox
from domain.outbox import CommitHorizon, LeasedLane
from domain.outbox.table import lanes
from domain.runtime.settings import Settings
from tests.conftest import OpenRelay
from tests.support.builders import Db
from tests.support.outbox import SHOP, FakeDestination, claimed, states
from tests.support.ports import free_port
from tests.support.requirements import required
from tests.support.waiting import wait_until
from worker.relay.liveness import Liveness

PGBOUNCER = Path("/usr/sbin/pgbouncer")

Start = Callable[..., Liveness]
Logs = list[Any]


@pytest.fixture
def a_process(db: Db, settings: Settings) -> Iterator[Start]:
    """Start what a process has for its liveness; it ends with the test. Each has connections of its own."""
    with ExitStack() as processes:

        def started(**changed: str) -> Liveness:
            process = Liveness(settings.model_copy(update=changed), db)
            processes.callback(process.close)
            process.start()
            return process

        yield started


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as logs:
        yield logs


def events(logs: Logs, *names: str) -> Sequence[Mapping[str, Any]]:
    return [event for event in list(logs) if event["event"] in names]


def key_of(process: Liveness) -> int:
    key = process.key()
    assert key is not None
    return key


def a_lane_of(db: Db, process: Liveness) -> LeasedLane:
    with db.begin() as session:
        holder = f"host:1:{process.key()}"
        lane = outbox.claim(session, [SHOP], holder, CommitHorizon(), liveness_key=process.key())
    assert lane is not None
    return lane


def keys_in_lanes(db: Db) -> set[int]:
    with db.begin() as session:
        return {key for key in session.execute(select(lanes.c.liveness_key)).scalars() if key is not None}


def sessions_of(db: Db, application_name: str) -> Sequence[int]:
    """Return the ids of the backends that serve connections of this name."""
    named = text("SELECT pid FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()")
    with db.begin() as session:
        return session.execute(named, {"name": application_name}).scalars().all()


def cut_off(db: Db, process: Liveness) -> None:
    """End the session that holds the lock of a process, as an operator or a failing network does."""
    holder = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = :key AND mode = 'ExclusiveLock'")
    with db.begin() as session:
        pid = session.execute(holder, {"key": process.key()}).scalar_one()
        session.execute(select(func.pg_terminate_backend(pid)))


def test_what_a_process_had_leased_is_taken_over_as_soon_as_it_is_dead(shop: Db, a_process: Start, logs: Logs) -> None:
    watching, dying = a_process(), a_process()
    taken: list[LeasedLane | None] = []
    watching.watch(lambda: taken.append(claimed(shop)))
    a_lane_of(shop, watching)
    old = a_lane_of(shop, dying)

    dying.close()
    wait_until("its lane is taken over", lambda: taken, within=3)

    assert [lane and lane.number for lane in taken] == [old.number]
    (died,) = events(logs, "worker.died")
    assert (died["workers"], died["lanes"]) == (["host:1"], 1)


def test_a_process_frees_the_lanes_of_the_dead_when_it_starts(shop: Db, a_process: Start) -> None:
    dead = a_process()
    a_lane_of(shop, dead)
    dead.close()
    wait_until("PostgreSQL has noticed", lambda: not sessions_of(shop, "holdfast-liveness"))

    starting = a_process()

    assert keys_in_lanes(shop) == set()
    taken: list[LeasedLane | None] = []
    starting.watch(lambda: taken.append(claimed(shop)))
    assert len(taken) == 1, "What was freed before it could drain is drained now."


def test_a_process_that_has_released_its_lanes_ends_without_a_word(shop: Db, a_process: Start, logs: Logs) -> None:
    watching, ending = a_process(), a_process()
    watching.watch(lambda: None)
    lane = a_lane_of(shop, ending)
    with shop.begin() as session:
        outbox.release(session, lane)

    ending.close()
    wait_until("PostgreSQL has noticed", lambda: len(sessions_of(shop, "holdfast-liveness")) == 1)
    a_process()

    assert events(logs, "worker.died") == []


def test_a_process_that_is_cut_off_lives_on_under_a_new_key(shop: Db, a_process: Start, logs: Logs) -> None:
    """Nobody watches it, so nobody has freed its lane before it is there again: it keeps the lane."""
    process = a_process()
    before, lane = key_of(process), a_lane_of(shop, process)

    cut_off(shop, process)
    wait_until("it has a new key", lambda: process.key() not in (None, before))

    assert keys_in_lanes(shop) == {key_of(process)}
    with shop.begin() as session:
        assert outbox.renew(session, [lane]) == {lane}
    assert [event["event"] for event in events(logs, "liveness.lost", "liveness.restored")] == [
        "liveness.lost",
        "liveness.restored",
    ]


def test_without_a_connection_of_its_own_a_process_delivers_under_its_leases_alone(
    shop: Db, a_process: Start, relay_to: OpenRelay, logs: Logs
) -> None:
    process = a_process(database_direct_url=f"postgresql://127.0.0.1:{free_port()}/nobody_listens")
    relay = replace(relay_to(FakeDestination()), liveness_key=process.key)

    relay.run()

    assert states(shop) == ["processed", "processed"]
    assert len(events(logs, "liveness.lost")) == 1


def test_a_process_that_can_not_wait_for_another_one_looks_for_its_end_instead(
    shop: Db, a_process: Start, one_connection: str, logs: Logs
) -> None:
    watching, dying = a_process(database_direct_url=one_connection), a_process()
    taken: list[LeasedLane | None] = []
    watching.watch(lambda: taken.append(claimed(shop)))

    wait_until("it has tried", lambda: events(logs, "liveness.unwatched"))
    a_lane_of(shop, dying)

    dying.close()
    wait_until("its lane is taken over", lambda: taken, within=3)


@pytest.fixture
def one_connection(db: Db, settings: Settings) -> Iterator[str]:
    """The URL of the database for a user who may have one connection."""
    with db.begin() as session:
        session.execute(text("CREATE ROLE lonely LOGIN CONNECTION LIMIT 1"))
        session.execute(text("GRANT ALL ON outbox_lanes, outbox_calls, outbox TO lonely"))
    yield make_url(settings.database_url).set(username="lonely").render_as_string(hide_password=False)
    with db.begin() as session:
        session.execute(text("REVOKE ALL ON outbox_lanes, outbox_calls, outbox FROM lonely"))
        session.execute(text("DROP ROLE lonely"))


def test_after_a_loss_of_its_own_a_process_gives_the_others_time_to_come_back(
    shop: Db, a_process: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL restarts, and all processes lose their locks at once: none of them is dead."""
    monkeypatch.setattr("worker.relay.liveness.OTHERS_RECONNECT_SECONDS", 60.0)
    process, other = a_process(), a_process()
    lost, lane = key_of(process), a_lane_of(shop, other)

    cut_off(shop, process)
    wait_until("it has a new key", lambda: process.key() not in (None, lost))
    carried = key_of(other)
    other.close()
    wait_until("PostgreSQL has noticed", lambda: len(sessions_of(shop, "holdfast-liveness")) == 1)
    with shop() as session:
        assert outbox.find_liveness_keys(session).dead == {carried}
    process.close()

    assert keys_in_lanes(shop) == {carried}
    with shop.begin() as session:
        assert outbox.renew(session, [lane]) == {lane}


def test_nothing_that_fails_when_lanes_are_taken_over_ends_the_watch(shop: Db, a_process: Start, logs: Logs) -> None:
    watching = a_process()
    taken: list[LeasedLane | None] = []

    def take_over() -> None:
        taken.append(claimed(shop))
        raise RuntimeError

    watching.watch(take_over)
    for times in (1, 2):
        dying = a_process()
        a_lane_of(shop, dying)
        dying.close()
        wait_until("its lane is taken over", partial(_has, taken, times), within=3)

    assert len(events(logs, "thread.round_failed")) == 2


def _has(taken: Sequence[object], times: int) -> bool:
    return len(taken) >= times


@pytest.mark.slow
def test_behind_a_pooler_it_is_off_and_says_what_to_do(
    settings: Settings, shop: Db, a_process: Start, logs: Logs, tmp_path: Path
) -> None:
    with pooled(settings.database_url, tmp_path) as url:
        process = a_process(database_url=url)

        assert process.key() is None
        assert a_lane_of(shop, process).number == 1

    (off,) = events(logs, "liveness.off")
    assert "DATABASE_DIRECT_URL" in off["advice"]
    assert events(logs, "liveness.lost") == []


@pytest.mark.slow
def test_behind_a_pooler_a_direct_address_switches_it_on(
    settings: Settings, shop: Db, a_process: Start, logs: Logs, tmp_path: Path
) -> None:
    with pooled(settings.database_url, tmp_path) as url:
        process = a_process(database_url=url, database_direct_url=settings.database_url)
        a_lane_of(shop, process)

        assert keys_in_lanes(shop) == {key_of(process)}

    assert events(logs, "liveness.off", "liveness.lost") == []


def test_a_lock_that_others_do_not_see_is_worse_than_none_so_it_is_off(
    shop: Db, a_process: Start, postgresql: PostgreSQL, logs: Logs
) -> None:
    process = a_process(database_direct_url=postgresql.create("elsewhere"))
    other = a_process()
    a_lane_of(shop, process)

    assert process.key() is None
    assert keys_in_lanes(shop) == set()
    assert other.key() is not None
    (off,) = events(logs, "liveness.off")
    assert "another database" in off["advice"]


@contextmanager
def pooled(url: str, home: Path) -> Iterator[str]:
    """Run a PgBouncer that gives each transaction any of its connections. Yield its URL for the same database."""
    required("PgBouncer", PGBOUNCER.exists(), "pgbouncer")
    port, server = free_port(), make_url(url)
    sockets = Path(str(server.query["host"]))
    configuration = home / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n* = host={sockets} user={server.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\n"
    )
    # It does not run as root, and only the owner of PostgreSQL's data may use its socket.
    owner = ["-u", sockets.owner()] if os.getuid() == 0 else []
    with (home / "pgbouncer.log").open("wb") as log:
        pgbouncer = subprocess.Popen([PGBOUNCER, *owner, configuration], stdout=log, stderr=log)
    try:
        wait_until("PgBouncer listens", lambda: b"process up" in (home / "pgbouncer.log").read_bytes())
        yield f"postgresql://{server.username}@127.0.0.1:{port}/{server.database}"
    finally:
        pgbouncer.terminate()
        pgbouncer.wait()
