"""The outbox: promises recorded with what they are about, kept later, in order, once at least."""

from domain.outbox.delivery.fetch import fetch, wake
from domain.outbox.delivery.lanes import Lane, claim, fence, register, release, renew
from domain.outbox.delivery.low_watermark import Horizon, take_away_wrong_ones
from domain.outbox.delivery.outcomes import (
    DELIVERED,
    HELD,
    Delivered,
    Failed,
    Held,
    Moot,
    Outcome,
    Refused,
    Rejected,
    Unreachable,
)
from domain.outbox.delivery.settle import Settlement, settle
from domain.outbox.prune import BEGINNING, prune
from domain.outbox.record import Event, has_recorded, record
from domain.outbox.table import Row

__all__ = [
    "BEGINNING",
    "DELIVERED",
    "HELD",
    "Delivered",
    "Event",
    "Failed",
    "Held",
    "Horizon",
    "Lane",
    "Moot",
    "Outcome",
    "Refused",
    "Rejected",
    "Row",
    "Settlement",
    "Unreachable",
    "claim",
    "fence",
    "fetch",
    "has_recorded",
    "prune",
    "record",
    "register",
    "release",
    "renew",
    "settle",
    "take_away_wrong_ones",
    "wake",
]
