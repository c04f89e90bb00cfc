"""Where a victim stops to be struck: a gate around the product's own function at that point.

The product is not changed and nothing is faked. A gate tells what the victim has in hand
and waits to be let go, once; from then on it stands open.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
from tests.support.operations import DEED
from worker import maintenance
from worker.app import App
from worker.relay.relay import Hold
from worker.sinks.log import Log
from worker.sinks.webhook import Webhook
from worker.steps.confirmation import Confirmation

#: A delivery of one row has no middle, and no order.
ENOUGH_ROWS = 2

#: Older rows are pruned, as long as they have left.
RETENTION = timedelta(days=7)

#: How many rows are replayed.
REPLAYED = 5

#: How each destination sends one row.
SENDS = {Log: "_write", Webhook: "_post", Confirmation: "_call"}

log = structlog.get_logger()


@dataclass
class Gate:
    """Stands open once `go` exists. `backends` are the victim's connections, by PostgreSQL's process ids."""

    go: Path
    backends: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    is_passed: bool = False

    def stop_with(self, rows: Sequence[Row]) -> None:
        """Stop, if these rows in hand are enough to show something."""
        if len(rows) >= ENOUGH_ROWS:
            self.stop([row.id for row in rows])

    def stop(self, ids: Sequence[int] = ()) -> None:
        """Tell which rows are in hand, and wait to be let go."""
        with self._lock:
            if self.is_passed:
                return
            self.is_passed = True
        log.info("gate.reached", rows=ids, backends=sorted(self.backends), clock=time.time())
        # Not `time.sleep`, which libfaketime breaks when it leaves the monotonic clock alone
        # (wolfcw/libfaketime#426).
        while not self.go.exists():
            threading.Event().wait(0.01)


@dataclass(frozen=True, kw_only=True)
class Point:
    """`put` puts the gate there, `work` is what the victim does again and again.

    `holds_lane` says that the victim holds a lane there and is in no transaction, so that
    others take the lane over when its lease is out; `has_sent`, that all it has in hand has
    left, so that what is undone there goes out again.
    """

    put: Callable[[Gate], None]
    work: Callable[[App], None]
    holds_lane: bool = False
    has_sent: bool = False


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Call `around` with the function that is there, and with what it is called with, in its place."""
    inner = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: around(inner, *args, **options))


def before_claim_commits(gate: Gate) -> None:
    """It has a lane and has read its rows, and nobody else can see that yet."""
    claimed: list[outbox.Lane] = []

    def claim(inner: Callable[..., outbox.Lane | None], *args: Any) -> outbox.Lane | None:
        lane = inner(*args)
        claimed[:] = [lane] if lane else []
        return lane

    def fetch(inner: Callable[..., Sequence[Row]], *args: Any, **options: Any) -> Sequence[Row]:
        rows = inner(*args, **options)
        if claimed:
            gate.stop_with(rows)
        return rows

    def begin(inner: Callable[[Hold], bool], hold: Hold) -> bool:
        has_begun = inner(hold)
        claimed.clear()
        return has_begun

    _wrap(outbox, "claim", claim)
    _wrap(outbox, "fetch", fetch)
    _wrap(Hold, "begin", begin)


def after_claim(gate: Gate) -> None:
    """Its claim has committed, and nothing is sent."""

    def begin(inner: Callable[[Hold], bool], hold: Hold) -> bool:
        has_begun = inner(hold)
        gate.stop_with(hold._rows)
        return has_begun

    _wrap(Hold, "begin", begin)


def in_mid_delivery(gate: Gate) -> None:
    """The first row of its batch has left, the last one has not."""
    batch: list[Row] = []

    def deliver(inner: Callable[..., Any], destination: Any, rows: Sequence[Row]) -> Any:
        batch[:] = rows
        return inner(destination, rows)

    def send(inner: Callable[..., Any], *args: Any) -> Any:
        outcome = inner(*args)
        gate.stop_with(batch)
        return outcome

    for kind, name in SENDS.items():
        _wrap(kind, "deliver", deliver)
        _wrap(kind, name, send)


def before_settle(gate: Gate) -> None:
    """Its batch has left, and nothing of that is written down."""

    def deliver(inner: Callable[..., Any], destination: Any, rows: Sequence[Row]) -> Any:
        outcomes = inner(destination, rows)
        gate.stop_with(rows)
        return outcomes

    for kind in SENDS:
        _wrap(kind, "deliver", deliver)


def in_mid_settle(gate: Gate) -> None:
    """All is written down, in a transaction that is still open."""

    def settle(inner: Callable[..., Any], session: Any, lane: Any, deliveries: Any, **options: Any) -> Any:
        settlement = inner(session, lane, deliveries, **options)
        if settlement:
            gate.stop_with([row for row, _ in deliveries])
        return settlement

    _wrap(outbox, "settle", settle)


#: What `outbox.prune` returns.
Pruned = tuple[int, datetime | None]


def in_pruning(gate: Gate) -> None:
    """One transaction of old rows is gone for good, the next is deleted and has not committed."""
    pruned: list[int] = []

    def prune(inner: Callable[..., Pruned], *args: Any, **options: Any) -> Pruned:
        count, after = inner(*args, **options)
        pruned.append(count)
        if count and len(pruned) > 1 and pruned[-2]:
            gate.stop()
        return count, after

    _wrap(outbox, "prune", prune)


def in_replay(gate: Gate) -> None:
    """Rows that had left are pending again, in a transaction that is still open. It replays once."""

    def send_again(inner: Callable[[Session, Batch], Changed], session: Session, batch: Batch) -> Changed:
        if gate.is_passed:
            return Changed(rows=0, following=None)
        changed = inner(session, batch)
        again = select(table.c.id).where(table.c.replayed_at == func.now())
        gate.stop([row.id for row in session.execute(again)])
        return changed

    _wrap(replay, "send_again", send_again)


def drains(app: App) -> None:
    app.drain.run()


def prunes(app: App) -> None:
    maintenance.prune(app.db, app.drain.stopping, outbox_retention=RETENTION)


def replays(app: App) -> None:
    """Replay a few of the rows that have left, as soon as there are as many."""
    (destination,) = app.drain.routes
    selection = Selection(among=Among.DELIVERED, destination=destination)
    with app.db.begin() as session:
        if replay.count(session, selection).rows >= REPLAYED:
            replay.send_again(session, Batch(selection=selection, deed=DEED, limit=REPLAYED))


POINTS: Mapping[str, Point] = {
    "before-claim-commits": Point(put=before_claim_commits, work=drains),
    "after-claim": Point(put=after_claim, work=drains, holds_lane=True),
    "in-mid-delivery": Point(put=in_mid_delivery, work=drains, holds_lane=True),
    "before-settle": Point(put=before_settle, work=drains, holds_lane=True, has_sent=True),
    "in-mid-settle": Point(put=in_mid_settle, work=drains, has_sent=True),
    "in-pruning": Point(put=in_pruning, work=prunes),
    "in-replay": Point(put=in_replay, work=replays),
}
