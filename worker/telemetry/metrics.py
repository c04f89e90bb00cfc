"""What workers and the scheduler count. The help texts say what to alert on."""

from bisect import bisect_left
from collections import Counter as Occurrences
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache

from domain.outbox import Delivery, Failed, Rejected, Settlement, Unreachable
from domain.runtime.metrics import Counter, Gauge, Histogram

#: From what a user takes for immediate to the length of an outage, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

_BY = ["destination"]
DELIVERED = Counter(
    "holdfast_outbox_delivered", "Rows that were delivered, or whose step was answered or had nothing left to ask.", _BY
)
FAILED = Counter(
    "holdfast_outbox_failed",
    "Deliveries that failed and spent an attempt. Alert if they outnumber the delivered rows.",
    _BY,
)
REJECTED = Counter(
    "holdfast_outbox_rejected", "Rows that became dead letters at the first answer. Alert on any increase.", _BY
)
UNREACHABLE = Counter(
    "holdfast_outbox_unreachable",
    "Deliveries that found their destination down or throttling. Only a row that is itself the cause spends an"
    " attempt. Alert on holdfast_outbox_breaker_open instead.",
    _BY,
)
DIED = Counter(
    "holdfast_outbox_died",
    "Rows that became dead letters, at once or after their last attempt. Alert on any increase.",
    _BY,
)
FENCED = Counter(
    "holdfast_outbox_fenced",
    "Rows sent under a lease that was lost: they are sent again. Some after a kill are normal; alert if it continues.",
    _BY,
)
LEASED = Gauge("holdfast_lanes_leased", "Lanes that are being drained now, of 32.", _BY, multiprocess_mode="livesum")
AGE = Histogram(
    "holdfast_outbox_commit_to_delivered_seconds",
    "From the recording of a row to the settling of its delivery, by the database's clock, without replays."
    " Alert if the 99th percentile is above what you have agreed with your consumers.",
    _BY,
    buckets=BUCKETS,
)
WAKEUPS_SENT = Counter(
    "holdfast_scheduler_wakeups_sent",
    "Wake-ups sent by the scheduler. Alert if it does not grow: then neither retries nor maintenance run on time.",
    ["actor"],
)
WAKEUPS_FAILED = Counter(
    "holdfast_scheduler_wakeups_failed",
    "Wake-ups of the scheduler that no broker took. Alert if it grows for a minute.",
    ["actor"],
)


def begin(destinations: Iterable[str]) -> None:
    """Expose the counts of these destinations from 0 on: a count that appears with its first event has no increase."""
    for name in destinations:
        for metric in (DELIVERED, FAILED, REJECTED, UNREACHABLE, DIED, FENCED, LEASED):
            metric.labels(name)
        _ages(name)


def count(destination: str, deliveries: Sequence[Delivery], settlement: Settlement | None) -> None:
    """Count what became of a batch. It is called once per batch, so it costs almost nothing per row."""
    if settlement is None:
        FENCED.labels(destination).inc(len(deliveries))
        return
    if settlement.processed:
        DELIVERED.labels(destination).inc(len(settlement.processed))
        recorded = [row.created_at for row, _ in settlement.processed if not row.is_replayed]
        _ages(destination).add(recorded, settlement.at)
    if len(settlement.processed) < len(deliveries):
        _count_undelivered(destination, deliveries)
    if settlement.dead:
        DIED.labels(destination).inc(len(settlement.dead))


_UNDELIVERED = {Failed: FAILED, Rejected: REJECTED, Unreachable: UNREACHABLE}


def _count_undelivered(destination: str, deliveries: Sequence[Delivery]) -> None:
    for kind, times in Occurrences(type(outcome) for _, outcome in deliveries).items():
        if kind in _UNDELIVERED:
            _UNDELIVERED[kind].labels(destination).inc(times)


class Ages:
    """The histogram of one destination. Observing 1,000 rows one by one would cost a tenth of settling them."""

    def __init__(self, destination: str) -> None:
        histogram = AGE.labels(destination)
        # prometheus_client has no public way to observe many values at once.
        self._buckets, self._sum = histogram._buckets, histogram._sum

    def add(self, recorded: Iterable[datetime], at: datetime) -> None:
        """Observe the ages, at the time `at`, of rows that were recorded at the given times."""
        ordered = sorted(recorded)  # they are nearly sorted, so this is one pass
        older = len(ordered)
        # The last bucket has no bound.
        firsts = [bisect_left(ordered, at - bound) for bound in _BOUNDS] + [0]
        for bucket, first in zip(self._buckets, firsts, strict=True):
            if first < older:
                bucket.inc(older - first)
                older = first
        self._sum.inc(sum([at - moment for moment in ordered], timedelta()).total_seconds())


_BOUNDS = [timedelta(seconds=bound) for bound in BUCKETS]

_ages = cache(Ages)
