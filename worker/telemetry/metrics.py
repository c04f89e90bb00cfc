"""What worker and scheduler count. HELP says what to alert on."""

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from domain.outbox import Failed, Rejected, Settlement, Unreachable
from domain.outbox.delivery.outcomes import Delivery

# Nobody asks when a counter was made, and that would be told beside each.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: From what a customer calls at once to what an outage looks like, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

_BY = ["destination"]
DELIVERED = Counter("holdfast_outbox_delivered", "Rows that left: the destination has them, or has answered.", _BY)
FAILED = Counter(
    "holdfast_outbox_failed",
    "Deliveries that failed and spent an attempt. Alert if they outnumber what leaves.",
    _BY,
)
REJECTED = Counter("holdfast_outbox_rejected", "Rows refused for good, and dead at once. Alert on any increase.", _BY)
UNREACHABLE = Counter(
    "holdfast_outbox_unreachable",
    "Deliveries that found their destination down or throttling; no attempt is spent but by a row that is itself to"
    " blame. Alert on holdfast_outbox_breaker_open instead.",
    _BY,
)
DIED = Counter(
    "holdfast_outbox_died", "Rows given up, rejected or after their last attempt. Alert on any increase.", _BY
)
FENCED = Counter(
    "holdfast_outbox_fenced",
    "Rows sent under a lease that was lost: they go out again. Some after a kill are normal; alert if it goes on.",
    _BY,
)
NOT_SENT = Gauge("holdfast_lanes_held", "Lanes that are being drained now, of 32.", _BY, multiprocess_mode="livesum")
AGE = Histogram(
    "holdfast_outbox_commit_to_delivered_seconds",
    "From the recording of a row to the settling of its delivery, by the database's clock; replays are left out."
    " Alert if the 99th percentile is above what your consumers were promised.",
    _BY,
    buckets=BUCKETS,
)
RINGS = Counter(
    "holdfast_scheduler_rings", "Wake-ups sent. Alert if it stands still: retries and sweeps do too.", ["actor"]
)
UNHEARD = Counter(
    "holdfast_scheduler_unheard", "Wake-ups that no broker took. Alert if it grows for a minute.", ["actor"]
)


def begin(destinations: Iterable[str]) -> None:
    """Show every count of these from 0 on: one that appears with its first event seems not to have grown."""
    for name in destinations:
        for metric in (DELIVERED, FAILED, REJECTED, UNREACHABLE, DIED, FENCED, NOT_SENT):
            metric.labels(name)
        _ages(name)


def count(destination: str, deliveries: Sequence[Delivery], settlement: Settlement | None) -> None:
    """Count what became of a batch. It is called once a batch, and costs a row next to nothing."""
    if settlement is None:
        FENCED.labels(destination).inc(len(deliveries))
        return
    if settlement.processed:
        DELIVERED.labels(destination).inc(len(settlement.processed))
        recorded = [row.created_at for row, _ in settlement.processed if not row.is_replayed]
        _ages(destination).add(recorded, settlement.at)
    if len(settlement.processed) < len(deliveries):
        _count_troubles(destination, deliveries)
    if settlement.dead:
        DIED.labels(destination).inc(len(settlement.dead))


_TROUBLES = {Failed: FAILED, Rejected: REJECTED, Unreachable: UNREACHABLE}


def _count_troubles(destination: str, deliveries: Sequence[Delivery]) -> None:
    for kind, times in Tally(type(outcome) for _, outcome in deliveries).items():
        if kind in _TROUBLES:
            _TROUBLES[kind].labels(destination).inc(times)


class Ages:
    """The histogram of one destination. Observing 1,000 rows one by one would cost a tenth of settling them."""

    def __init__(self, destination: str) -> None:
        histogram = AGE.labels(destination)
        # There is no public way to observe many at once.
        self._buckets, self._sum = histogram._buckets, histogram._sum

    def add(self, recorded: Iterable[datetime], at: datetime) -> None:
        """Observe how old rows are, at this time, that were recorded at those."""
        ordered = sorted(recorded)  # they nearly are, so this is one pass
        older = len(ordered)
        # The last bucket, which has no bound, is for the rest.
        firsts = [bisect_left(ordered, at - bound) for bound in _BOUNDS] + [0]
        for bucket, first in zip(self._buckets, firsts, strict=True):
            if first < older:
                bucket.inc(older - first)
                older = first
        self._sum.inc(sum([at - moment for moment in ordered], timedelta()).total_seconds())


_BOUNDS = [timedelta(seconds=bound) for bound in BUCKETS]

_ages = cache(Ages)
