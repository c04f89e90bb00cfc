"""The members that problems have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """What a member is, and its types and its format in terms of JSON Schema."""

    text: str
    types: Sequence[str] = ("string",)
    format: str | None = None


INTEGER = ("integer",)

#: Those of every problem.
COMMON: Mapping[str, Member] = {
    "type": Member("What kind of problem it is: stable, and a reference to the page about it"),
    "title": Member("The type in words"),
    "status": Member("The status of the response", INTEGER),
    "detail": Member("What happened and what to do, for people"),
    "request_id": Member("The id of the request, as in the header X-Request-Id of the response"),
}

#: Those of some.
FURTHER: Mapping[str, Member] = {
    "field": Member("The part of the request that is at fault"),
    "reason": Member("Why it is at fault"),
    "retry_after": Member("Send the request again after this many seconds, as the header Retry-After says", INTEGER),
    "limit": Member("The name of the limit that is used up"),
    "quota": Member("The requests that the limit allows", INTEGER),
    "seconds": Member("The time within which it allows them, in seconds", INTEGER),
    "operation": Member("What none of the sender's roles may do, as `bin/rights` names it"),
    "item": Member("The id (a number) or the sku (text) that no item has", ("integer", "string")),
    "reservation_id": Member("The id of the reservation", format="uuid"),
    "slot_id": Member("The slot that can't be had, or the one at the same time"),
    "slot_start": Member("When that slot begins", format="date-time"),
    "slot_end": Member("Just before when that slot ends", format="date-time"),
    "reference": Member("The reference that no booking has"),
    "destination": Member("The name that no destination has"),
    "known": Member("The names of the destinations"),
    "subject_id": Member("The id of the event or of the reservation", format="uuid"),
    "after": Member("The position after which events were asked for", INTEGER),
    "oldest": Member("The position of the oldest event that the feed has", INTEGER),
    "sku": Member("The sku of the item"),
    "asked": Member("The units that were requested", INTEGER),
    "available_quantity": Member("The units that are available", INTEGER),
    "start": Member("When the requested period begins", format="date-time"),
    "end": Member("Just before when the requested period ends", format="date-time"),
    "conflicts": Member(
        "What is in the way: `quantity` units are taken from `start` until `end`, buffers included. If that is a hold,"
        " it lapses at `lapses_at` unless it is confirmed",
        ("array",),
    ),
    "alternatives": Member(
        "Up to three that are free: `quantity` units of the item `sku`, from `start` until `end`", ("array",)
    ),
    "time_zone": Member("The time zone of the calendar, by its IANA name"),
    "opening_hours": Member("When the calendar is open on the first days of the period, by date", ("object",)),
    "capacity": Member("The capacity that was requested", INTEGER),
    "in_use": Member("The most units that reservations use at one moment", INTEGER),
    "external_reference": Member("The outside reference that another reservation has"),
    "adjust_quantity_by": Member("The change of the stock that was requested", INTEGER),
    "current_status": Member("The status of the reservation"),
    "allowed": Member("The statuses that it can go to, with commas between"),
    "venue": Member("The venue that has no such calendar"),
    "to": Member("The status that was requested, if one was"),
    "expired_at": Member("When the hold expired", format="date-time"),
    "latest_expires_at": Member("The latest time until which the hold may be extended", format="date-time"),
    "forgotten_at": Member("When the guest was forgotten", format="date-time"),
    "expected_version": Member("The version that was expected", INTEGER),
    "current_version": Member("The version of the reservation; an item has none", INTEGER),
    "if_match": Member("The header If-Match"),
    "current_etag": Member("The current ETag"),
    "key": Member("The idempotency key"),
    "key_id": Member("The id of the key that the personal data was encrypted by"),
}

#: Those that a problem of their type may lack.
OPTIONAL = frozenset({"current_version", "to", "conflicts", "alternatives"})
