"""Reservations: units of an item, held for someone."""

from domain.reservations.capacity import Claim
from domain.reservations.changes import Amendment, Extension, Reschedule, Wanted, change
from domain.reservations.decisions import Deferred, Reserve
from domain.reservations.expiry import expire
from domain.reservations.free import named_by
from domain.reservations.queries import Filter, Page, Window, WindowPage, find, find_overlapping, get, get_booking
from domain.reservations.refusals import refusal_of, refusal_of_change
from domain.reservations.reserve import KeyRace, reserve
from domain.reservations.shortages import BRIEF, THOROUGH, Effort
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
    "Reschedule",
    "Reservation",
    "Reserve",
    "Wanted",
    "Window",
    "WindowPage",
    "change",
    "expire",
    "find",
    "find_overlapping",
    "get",
    "get_booking",
    "lock",
    "named_by",
    "refusal_of",
    "refusal_of_change",
    "reserve",
    "transition",
]
