"""Idempotency keys: the same request twice has one effect and one answer."""

from domain.idempotency.answers import KEY_DIGITS, lookup, lookup_query, once, read_answers, replay, store_query
from domain.idempotency.prune import prune
from domain.idempotency.table import KEPT_FOR, Answered, Key, StoredAnswer, requests

__all__ = [
    "KEPT_FOR",
    "KEY_DIGITS",
    "Answered",
    "Key",
    "StoredAnswer",
    "lookup",
    "lookup_query",
    "once",
    "prune",
    "read_answers",
    "replay",
    "requests",
    "store_query",
]
