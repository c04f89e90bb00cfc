"""Items: what can be reserved, and how much of it there is."""

from domain.items.audit import audit_change, audit_creation
from domain.items.queries import find, get, id_of, named, of_venue
from domain.items.stock import Locked, amend, create, lock, lock_free, move, move_query
from domain.items.table import MAX_ID, MAX_QUANTITY, Item, Kind, items

__all__ = [
    "MAX_ID",
    "MAX_QUANTITY",
    "Item",
    "Kind",
    "Locked",
    "amend",
    "audit_change",
    "audit_creation",
    "create",
    "find",
    "get",
    "id_of",
    "items",
    "lock",
    "lock_free",
    "move",
    "move_query",
    "named",
    "of_venue",
]
