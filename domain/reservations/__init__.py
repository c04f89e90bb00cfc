"""Reservations: units of an item, held for someone."""

from domain.reservations.expiry import expire
from domain.reservations.queries import Filter, Page, find, get
from domain.reservations.reserve import BRIEF, THOROUGH, Deferred, Effort, KeyRace, Reserve, reserve
from domain.reservations.table import Reservation
from domain.reservations.transition import Change, change, lock, transition

__all__ = [
    "BRIEF",
    "THOROUGH",
    "Change",
    "Deferred",
    "Effort",
    "Filter",
    "KeyRace",
    "Page",
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
