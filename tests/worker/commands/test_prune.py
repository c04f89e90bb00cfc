"""bin/prune: it works from anywhere, with PostgreSQL alone, and reports what it deleted."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text

from domain.outbox.table import lanes
from domain.runtime.pruning import PRUNE_BATCH
from tests.support.builders import Db
from tests.support.commands import run_command, start_command
from tests.support.waiting import wait_until
from tests.worker.test_maintenance import (
    APPENDED_LONG_AGO,
    DELIVERED_LONG_AGO,
    DISCARDED_LONG_AGO,
    OLD_KEYS,
    PENDING,
    insert,
    remaining,
)

pytestmark = pytest.mark.slow


def test_an_empty_database_has_nothing_to_prune(db: Db) -> None:
    run = run_command("prune")

    nothing = "0 idempotency keys, 0 delivered rows, 0 discarded rows and 0 feed events deleted\n"
    assert (run.returncode, run.stdout, run.stderr) == (0, nothing, "")


def test_what_was_kept_long_enough_is_deleted_and_nothing_else(db: Db) -> None:
    insert(db, OLD_KEYS, 1_234)
    insert(db, DELIVERED_LONG_AGO, PRUNE_BATCH + 1)
    insert(db, DISCARDED_LONG_AGO, 1)
    insert(db, APPENDED_LONG_AGO, 3)
    insert(db, PENDING, 2)

    run = run_command("prune", FEED_RETENTION_DAYS="7")

    assert (run.returncode, run.stdout) == (
        0,
        "1,234 idempotency keys, 5,001 delivered rows, 1 discarded row and 2 feed events deleted\n",
    )
    assert remaining(db) == (0, 2)


def test_rows_are_kept_for_as_long_as_the_settings_say(db: Db) -> None:
    insert(db, DELIVERED_LONG_AGO, 3)
    insert(db, APPENDED_LONG_AGO, 3)

    kept = run_command("prune", OUTBOX_RETENTION_DAYS="9", FEED_RETENTION_DAYS="9")
    deleted = run_command("prune", "--json", OUTBOX_RETENTION_DAYS="7.5", FEED_RETENTION_DAYS="7.5")

    assert "0 delivered rows, 0 discarded rows and 0 feed events" in kept.stdout
    assert json.loads(deleted.stdout) == {
        "deleted": {"idempotency_keys": 0, "delivered_rows": 3, "discarded_rows": 0, "feed_events": 2},
        "complete": True,
    }


def test_runs_beside_each_other_delete_everything_once(db: Db) -> None:
    insert(db, OLD_KEYS, 3 * PRUNE_BATCH)
    insert(db, DELIVERED_LONG_AGO, 3 * PRUNE_BATCH)

    with ThreadPoolExecutor(3) as elsewhere:
        runs = list(elsewhere.map(lambda _: run_command("prune", "--json"), range(3)))
    last = run_command("prune", "--json")

    assert [run.returncode for run in runs] == [0, 0, 0]
    deleted = [json.loads(run.stdout)["deleted"] for run in (*runs, last)]
    assert sum(one["idempotency_keys"] for one in deleted) == 3 * PRUNE_BATCH
    assert sum(one["delivered_rows"] for one in deleted) == 3 * PRUNE_BATCH
    assert remaining(db) == (0, 0)


def test_a_run_that_is_interrupted_commits_its_batch_and_says_that_more_is_left(db: Db) -> None:
    insert(db, DELIVERED_LONG_AGO, 20 * PRUNE_BATCH)

    process = start_command("prune")
    try:
        wait_until("it has deleted a batch", lambda: remaining(db)[1] < 20 * PRUNE_BATCH)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 0
    assert output.decode().endswith(" deleted; the next run deletes the rest\n")
    assert 0 < remaining(db)[1] < 20 * PRUNE_BATCH
    assert remaining(db)[1] % PRUNE_BATCH == 0


def test_low_watermarks_that_keep_rows_from_being_delivered_are_reset(db: Db) -> None:
    insert(db, PENDING, 1)
    with db.begin() as session:
        session.execute(text("INSERT INTO outbox_lanes (destination, lane, low_watermark) VALUES ('shop', 0, 1000)"))

    run_command("prune")

    with db.begin() as session:
        stored = session.execute(select(lanes.c.low_watermark).where(lanes.c.destination == "shop"))
        assert stored.scalars().all() == [0]
