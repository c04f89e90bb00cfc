"""Idempotency keys: the same request twice has one effect and one answer."""

from domain.idempotency.answers import answers, looking_up, lookup, once, replay, storing
from domain.idempotency.prune import prune
from domain.idempotency.table import KEPT_FOR, Answered, Key, StoredAnswer, requests

__all__ = [
    "KEPT_FOR",
    "Answered",
    "Key",
    "StoredAnswer",
    "answers",
    "looking_up",
    "lookup",
    "once",
    "prune",
    "replay",
    "requests",
    "storing",
]
