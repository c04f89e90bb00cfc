"""The outbox: events recorded with the change that they report, delivered at least once and in order."""

from domain.outbox.delivery.claim import ProbeTaken, claim
from domain.outbox.delivery.commit_horizon import CommitHorizon
from domain.outbox.delivery.fetch import fetch, make_due_rows_ready, make_impossible_waits_due
from domain.outbox.delivery.lanes import LeasedLane, register, release, renew
from domain.outbox.delivery.low_watermark import reset_wrong_low_watermarks
from domain.outbox.delivery.outcomes import (
    DELIVERED,
    NOT_SENT,
    Declined,
    Delivered,
    Delivery,
    Failed,
    NotSent,
    Obsolete,
    Outcome,
    Rejected,
    RetryPolicy,
    Unreachable,
)
from domain.outbox.delivery.settle import Settlement, settle
from domain.outbox.prune import prune_delivered, prune_discarded
from domain.outbox.record import Event, has_recorded, record, record_query
from domain.outbox.routes import Route, Routes
from domain.outbox.table import Row

__all__ = [
    "DELIVERED",
    "NOT_SENT",
    "CommitHorizon",
    "Declined",
    "Delivered",
    "Delivery",
    "Event",
    "Failed",
    "LeasedLane",
    "NotSent",
    "Obsolete",
    "Outcome",
    "ProbeTaken",
    "Rejected",
    "RetryPolicy",
    "Route",
    "Routes",
    "Row",
    "Settlement",
    "Unreachable",
    "claim",
    "fetch",
    "has_recorded",
    "make_due_rows_ready",
    "make_impossible_waits_due",
    "prune_delivered",
    "prune_discarded",
    "record",
    "record_query",
    "register",
    "release",
    "renew",
    "reset_wrong_low_watermarks",
    "settle",
]
