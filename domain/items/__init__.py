"""Items: what can be reserved, and how much of it there is."""

from domain.items.queries import find, get
from domain.items.stock import Locked, amend, create, lock, lock_free, move
from domain.items.table import MAX_ID, MAX_QUANTITY, Item, items

__all__ = [
    "MAX_ID",
    "MAX_QUANTITY",
    "Item",
    "Locked",
    "amend",
    "create",
    "find",
    "get",
    "items",
    "lock",
    "lock_free",
    "move",
]
