"""Reservations: units of an item, held for someone."""

from domain.reservations.expiry import expire
from domain.reservations.queries import Filter, find, get
from domain.reservations.reserve import KeyRace, Reserve, reserve
from domain.reservations.table import Reservation
from domain.reservations.transition import Change, change, lock, transition

__all__ = [
    "Change",
    "Filter",
    "KeyRace",
    "Reservation",
    "Reserve",
    "change",
    "expire",
    "find",
    "get",
    "lock",
    "reserve",
    "transition",
]
