"""Checkpoints: where a target pauses for the fault. A checkpoint wraps the function of the product that works there.

The product is not changed and nothing is faked. At its checkpoint the target reports what it has in flight and waits
until it may continue. It does so once a hit, and passes the checkpoint at all other times.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import Row
from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox as table
from domain.runtime.pruning import Pruned
from tests.support.operations import ENTRY
from worker import maintenance
from worker.app import App
from worker.maintenance import Retention
from worker.relay.lane_run import LaneBatch, LaneRun
from worker.relay.relay import Claimed, Relay
from worker.sinks.amqp.sink import Amqp
from worker.sinks.log import Log
from worker.sinks.redis.sink import RedisStream
from worker.sinks.webhook import Webhook
from worker.steps.confirmation import ConfirmationStep

#: The delivery of a single row has no middle, and no order.
ENOUGH_ROWS = 2

#: Rows that were delivered longer ago than this are pruned.
RETENTION = Retention(outbox=timedelta(days=7), feed=timedelta(days=7))

#: How many rows are replayed.
REPLAYED = 5

#: The method with which each destination sends one row, or as many as one call may have.
SENDS = {Log: "_write", Webhook: "_post", ConfirmationStep: "_call", RedisStream: "_send", Amqp: "_send"}

log = structlog.get_logger()


@dataclass
class Pause:
    """The pauses of a target at its checkpoint, one a hit.

    It may pause when there is a file for the next hit, and continues when there is another one. `backends` are the
    connections of the target, by PostgreSQL's process ids.
    """

    folder: Path
    backends: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _hits: int = 0

    @property
    def is_due(self) -> bool:
        """Whether the next hit comes, and nobody pauses for it yet."""
        return hit_file(self.folder, self._hits).exists()

    def at_rows(self, rows: Sequence[Row]) -> None:
        """Pause, if enough rows are in flight for the fault to show something."""
        if len(rows) >= ENOUGH_ROWS:
            self.at([row.id for row in rows])

    def at(self, ids: Sequence[int] = ()) -> None:
        """Report the rows in flight, and wait."""
        with self._lock:
            hit = self._hits
            if not self.is_due:
                return
            self._hits += 1
        log.info("checkpoint.reached", rows=ids, backends=sorted(self.backends), clock=time.time())
        # `time.sleep` would not do: libfaketime breaks it when it leaves the monotonic clock alone
        # (wolfcw/libfaketime#426).
        while not may_continue(self.folder, hit).exists():
            threading.Event().wait(0.01)


def hit_file(folder: Path, hit: int) -> Path:
    """Return the file that has the target pause for a hit. The first hit is number 0."""
    return folder / f"hit-{hit}"


def may_continue(folder: Path, hit: int) -> Path:
    """Return the file that has the target continue after a hit."""
    return folder / f"continue-{hit}"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`install` puts the pause into the product's code, and `work` is what the target does again and again.

    With `has_lane` the target has leased a lane there and is in no transaction, so others take the lane over when its
    lease ends. With `has_sent` all that it has in flight was sent, so what is undone there is sent again.
    """

    install: Callable[[Pause], None]
    work: Callable[[App], None]
    has_lane: bool = False
    has_sent: bool = False


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by one that calls `around` with the function itself and its arguments."""
    inner = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: around(inner, *args, **options))


def before_claim_commits(pause: Pause) -> None:
    """It has claimed a lane and fetched its rows, and nobody else can see that yet."""

    def first_batch(inner: Callable[..., LaneBatch], *args: Any) -> LaneBatch:
        batch = inner(*args)
        pause.at_rows(batch.rows)
        return batch

    _wrap(LaneRun, "first_batch", first_batch)


def after_claim(pause: Pause) -> None:
    """Its claim is committed, and nothing is sent."""

    def claim(
        inner: Callable[[Relay, Sequence[str], float], Claimed | None],
        relay: Relay,
        names: Sequence[str],
        limit: float,
    ) -> Claimed | None:
        claimed = inner(relay, names, limit)
        if claimed:
            pause.at_rows(claimed.batch.rows)
        return claimed

    _wrap(Relay, "_claim", claim)


def in_mid_delivery(pause: Pause) -> None:
    """The first row of its batch is sent, the last one is not."""
    batch: list[Row] = []

    def deliver(inner: Callable[..., Any], destination: Any, rows: Sequence[Row]) -> Any:
        batch[:] = rows
        return inner(destination, rows)

    def send(inner: Callable[..., Any], *args: Any) -> Any:
        outcome = inner(*args)
        pause.at_rows(batch)
        return outcome

    for kind, name in SENDS.items():
        _wrap(kind, "deliver", deliver)
        _wrap(kind, name, send)


def before_settle(pause: Pause) -> None:
    """Its batch is sent, and nothing of that is written."""

    def deliver(inner: Callable[..., Any], destination: Any, rows: Sequence[Row]) -> Any:
        outcomes = inner(destination, rows)
        pause.at_rows(rows)
        return outcomes

    for kind in SENDS:
        _wrap(kind, "deliver", deliver)


def in_mid_settle(pause: Pause) -> None:
    """Its outcomes are written, in a transaction that is still open."""

    def settle(inner: Callable[..., Any], session: Any, lane: Any, deliveries: Any, **options: Any) -> Any:
        settlement = inner(session, lane, deliveries, **options)
        if settlement:
            pause.at_rows([row for row, _ in deliveries])
        return settlement

    _wrap(outbox, "settle", settle)


def in_pruning(pause: Pause) -> None:
    """One transaction of old rows is deleted and committed, the next one is not committed."""
    pruned: list[int] = []

    def prune(inner: Callable[..., Pruned], *args: Any, **options: Any) -> Pruned:
        batch = inner(*args, **options)
        pruned.append(batch.deleted)
        if batch.deleted and len(pruned) > 1 and pruned[-2]:
            pause.at()
        return batch

    _wrap(outbox, "prune_delivered", prune)


def in_replay(pause: Pause) -> None:
    """Delivered rows are pending again, in a transaction that is still open. It replays once a hit."""
    Replay = Callable[[Session, Batch, Collection[str]], Changed]  # noqa: N806

    def once(inner: Replay, session: Session, batch: Batch, step_types: Collection[str]) -> Changed:
        if not pause.is_due:
            return Changed(rows=0, following=None)
        changed = inner(session, batch, step_types)
        again = select(table.c.id).where(table.c.replayed_at == func.now())
        pause.at([row.id for row in session.execute(again)])
        return changed

    _wrap(replay, "replay", once)


def drain(app: App) -> None:
    app.relay.run()


def prune(app: App) -> None:
    maintenance.prune(app.db, app.relay.stopping, RETENTION)


def replay_some(app: App) -> None:
    """Replay a few delivered rows, as soon as there are as many."""
    (destination,) = app.relay.routes
    selection = Selection(among=Among.DELIVERED, destination=destination)
    with app.db.begin() as session:
        if replay.count(session, selection, app.routes.step_types).rows >= REPLAYED:
            batch = Batch(selection=selection, entry=ENTRY, limit=REPLAYED)
            replay.replay(session, batch, app.routes.step_types)


CHECKPOINTS: Mapping[str, Checkpoint] = {
    "before-claim-commits": Checkpoint(install=before_claim_commits, work=drain),
    "after-claim": Checkpoint(install=after_claim, work=drain, has_lane=True),
    "in-mid-delivery": Checkpoint(install=in_mid_delivery, work=drain, has_lane=True),
    "before-settle": Checkpoint(install=before_settle, work=drain, has_lane=True, has_sent=True),
    "in-mid-settle": Checkpoint(install=in_mid_settle, work=drain, has_sent=True),
    "in-pruning": Checkpoint(install=in_pruning, work=prune),
    "in-replay": Checkpoint(install=in_replay, work=replay_some),
}
