"""Reservations: units of an item, held for someone."""

from domain.reservations.capacity import Claim
from domain.reservations.changes import Amendment, Extension, Wanted, change
from domain.reservations.decisions import Deferred, Reserve
from domain.reservations.expiry import expire
from domain.reservations.queries import Filter, Page, find, get
from domain.reservations.reserve import BRIEF, THOROUGH, Effort, KeyRace, named_by, reserve
from domain.reservations.table import Line, Reservation
from domain.reservations.transition import Change, lock, transition

__all__ = [
    "BRIEF",
    "THOROUGH",
    "Amendment",
    "Change",
    "Claim",
    "Deferred",
    "Effort",
    "Extension",
    "Filter",
    "KeyRace",
    "Line",
    "Page",
    "Reservation",
    "Reserve",
    "Wanted",
    "change",
    "expire",
    "find",
    "get",
    "lock",
    "named_by",
    "reserve",
    "transition",
]
