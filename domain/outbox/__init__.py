"""The outbox: events recorded with the change that they report, delivered at least once and in order."""

from domain.outbox.delivery.claim import ProbeTaken, claim, claim_more
from domain.outbox.delivery.commit_horizon import CommitHorizon
from domain.outbox.delivery.fetch import fetch, fetch_few, make_due_rows_ready, make_impossible_waits_due
from domain.outbox.delivery.history import REFUSED_IN_A_ROW, History
from domain.outbox.delivery.lanes import LEASE, LeasedLane, register, release, renew
from domain.outbox.delivery.liveness import (
    LivenessKeys,
    adopt,
    find_liveness_keys,
    free_calls,
    free_lanes,
    lock_liveness_key,
    neighbour_of,
    wait_for_end,
)
from domain.outbox.delivery.low_watermark import reset_wrong_low_watermarks
from domain.outbox.delivery.outcomes import (
    DELIVERED,
    NOT_SENT,
    POSTPONED,
    Answered,
    Cause,
    Declined,
    Delivered,
    Delivery,
    Failed,
    InFlight,
    NotSent,
    Obsolete,
    Outcome,
    Postponed,
    Rejected,
    Unreachable,
    error_of,
    is_processed,
    is_refused,
    is_taken,
)
from domain.outbox.delivery.row_updates import RetryPolicy
from domain.outbox.delivery.settle import Call, give_up, settle, settle_late
from domain.outbox.delivery.settlement import NOTHING_SETTLED, Settlement, still_pending
from domain.outbox.prune import prune_delivered, prune_discarded
from domain.outbox.record import Event, has_recorded, record, record_query
from domain.outbox.routes import Route, Routes
from domain.outbox.table import LANES, Row, lane_of

__all__ = [
    "DELIVERED",
    "LANES",
    "LEASE",
    "NOTHING_SETTLED",
    "NOT_SENT",
    "POSTPONED",
    "REFUSED_IN_A_ROW",
    "Answered",
    "Call",
    "Cause",
    "CommitHorizon",
    "Declined",
    "Delivered",
    "Delivery",
    "Event",
    "Failed",
    "History",
    "InFlight",
    "LeasedLane",
    "LivenessKeys",
    "NotSent",
    "Obsolete",
    "Outcome",
    "Postponed",
    "ProbeTaken",
    "Rejected",
    "RetryPolicy",
    "Route",
    "Routes",
    "Row",
    "Settlement",
    "Unreachable",
    "adopt",
    "claim",
    "claim_more",
    "error_of",
    "fetch",
    "fetch_few",
    "find_liveness_keys",
    "free_calls",
    "free_lanes",
    "give_up",
    "has_recorded",
    "is_processed",
    "is_refused",
    "is_taken",
    "lane_of",
    "lock_liveness_key",
    "make_due_rows_ready",
    "make_impossible_waits_due",
    "neighbour_of",
    "prune_delivered",
    "prune_discarded",
    "record",
    "record_query",
    "register",
    "release",
    "renew",
    "reset_wrong_low_watermarks",
    "settle",
    "settle_late",
    "still_pending",
    "wait_for_end",
]
