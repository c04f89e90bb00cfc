"""The table of problems: the status and the words of each type.

The responses, the OpenAPI document, the pages under /problems and docs/problems.md are all made from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from api.http.limits import BODY_SECONDS, MAX_BODY_BYTES, MAX_PATH_BYTES, MAX_QUERY_BYTES, MOST_PIECES
from api.http.problems.types import ProblemType
from domain.runtime import errors
from domain.runtime.errors import HoldfastError, NotFound

_DECIDE_AGAIN = "GET it, and decide again."
_SEND_AGAIN = "Send the same request again after `retry_after` seconds, with the same Idempotency-Key."

OF_ERRORS: Mapping[type[HoldfastError], ProblemType] = {
    errors.Invalid: ProblemType(
        status=400,
        title="Invalid request",
        detail="{field}: {reason}. Nothing was changed; correct it and send it again.",
        when="A part of the request has a value that is never allowed, is missing, or is not known.",
        remedy="Correct the part that `field` names.",
    ),
    errors.IllegalTransition: ProblemType(
        status=400,
        title="Illegal transition",
        detail=(
            "The booking is {status}, and can't become {to}. From here it can become: {allowed}. Nothing was changed;"
            " decide again by its status."
        ),
        when="A booking can't go from its present status to the one that the request asks for.",
        remedy="Decide again by `allowed`. Asking for the status that the booking has is never refused.",
    ),
    errors.NotAuthenticated: ProblemType(
        status=401,
        title="Not authenticated",
        detail=(
            "Nobody knows who has sent this: {reason}. Nothing was changed. Send `Authorization: Bearer …` with a token"
            " of your identity provider, or with an API key."
        ),
        when="The request has no credentials, or some that are expired, revoked or not valid here.",
        remedy="Get a new token, or another API key. `reason` says what is wrong with the present one.",
    ),
    errors.NotAllowed: ProblemType(
        status=403,
        title="Not allowed",
        detail="None of your roles may do this ({operation}), or not on what belongs to others. Nothing was changed.",
        when="The sender is known, and none of its roles may use this operation, or not for somebody else.",
        remedy="Ask whoever runs Holdfast for the role. `bin/rights` shows what each role may do.",
    ),
    errors.UnknownItem: ProblemType(
        status=404,
        title="Unknown item",
        detail="No item has the id or sku {item}. GET /items lists all items.",
        when="No item has the id or the sku that the request names.",
        remedy="`GET /items` lists all items. A sku goes into a path percent-encoded: `/` is `%2F`.",
    ),
    errors.UnknownVenue: ProblemType(
        status=404,
        title="Unknown venue",
        detail=(
            "No calendar belongs to the venue {venue}, or not the one that `inventory_item_id` names. GET /items lists"
            " the calendars with their venues."
        ),
        when="A booking is for a venue that has no calendar, or not the one that the request names.",
        remedy="`GET /items` lists calendars: `venue` is what a booking calls `venue_id`.",
    ),
    errors.UnknownSlot: ProblemType(
        status=404,
        title="Unknown slot",
        detail="No slot has the id {slot_id}, or another provider has it. List the slots of the provider to find it.",
        when="No slot has the id that the request names, or it is another provider's.",
        remedy="`GET /providers/{providerId}/slots` lists the slots of a provider.",
    ),
    errors.UnknownReservation: ProblemType(
        status=404,
        title="Unknown reservation",
        detail="No reservation has the id {reservation_id}.",
        when="No reservation has the id that the request names.",
        remedy="`GET /reservations` lists reservations.",
    ),
    errors.UnknownReference: ProblemType(
        status=404,
        title="Unknown reference",
        detail="No booking has the reference {reference}.",
        when="No booking has the reference that the request names.",
        remedy="Check the reference: it is like BR-20300503-A3B9C2, in capital letters.",
    ),
    errors.UnknownDestination: ProblemType(
        status=404,
        title="Unknown destination",
        detail="No destination has the name {destination}. Known destinations: {known}. Nothing was changed.",
        when="No destination has the name that the request names.",
        remedy="Use one of the names in `known`.",
    ),
    errors.NotInOutbox: ProblemType(
        status=404,
        title="Not in outbox",
        detail=(
            "The outbox has no row of an event or a reservation with the id {subject_id}. Delivered rows are deleted"
            " after their retention time, and an event that no destination wants is not recorded."
        ),
        when="The outbox has no row of an event or a reservation with that id.",
        remedy="Check the id. Delivered rows are deleted after their retention time (`OUTBOX_RETENTION_DAYS`).",
    ),
    errors.NoFeed: ProblemType(
        status=404,
        title="No feed",
        detail=(
            "No destination appends events to the feed, so it cannot be read. Whoever runs Holdfast has to add a"
            ' destination with url = "feed:" to the routes file.'
        ),
        when="The feed is read, and no destination has the URL `feed:`.",
        remedy="Whoever runs Holdfast adds a destination with the URL `feed:` to the routes file.",
    ),
    errors.PositionGone: ProblemType(
        status=410,
        title="Position gone",
        detail=(
            "The feed does not have what followed position {after}: events are deleted after some time, and positions"
            " begin anew when the feed is made anew or restored. The oldest event that it has is at {oldest}. Find out"
            " elsewhere what you have missed, and leave `after` out to continue with the oldest one."
        ),
        when=(
            "What followed the position that the request names is not in the feed: it was deleted"
            " (`FEED_RETENTION_DAYS`), or no event has that position, as after the feed was made anew or restored from"
            " a backup."
        ),
        remedy=(
            "Find out elsewhere what you have missed, such as with `GET /reservations`. Then read from the oldest event"
            " on: without `after`, and without `Last-Event-ID`."
        ),
    ),
    errors.UnknownGuest: ProblemType(
        status=404,
        title="Unknown guest",
        detail="Nobody has said who the guest of the reservation {reservation_id} is. PUT it at the same path.",
        when="The reservation has no guest with personal data.",
        remedy="`PUT /reservations/{id}/guest` says who it is.",
    ),
    errors.GuestForgotten: ProblemType(
        status=410,
        title="Guest forgotten",
        detail=(
            "The guest of the reservation {reservation_id} was forgotten at {forgotten_at}: the personal data was"
            " destroyed, and none is taken for this reservation any more. The reservation is as it was."
        ),
        when="The personal data of the guest was destroyed on request.",
        remedy="Nothing brings it back. Make another reservation if the guest comes again.",
    ),
    errors.SoldOut: ProblemType(
        status=409,
        title="Sold out",
        detail=(
            "Requested {asked} of {sku}; {available_quantity} available. Nothing was reserved. Request less, or try"
            " again later with the same key: the units of holds that expire become available again."
        ),
        when="More units were requested than are available. This is not `busy`: the request was decided.",
        remedy="Request less, or try again later with the same key: the units of holds that expire become available.",
    ),
    errors.SlotTaken: ProblemType(
        status=409,
        title="Slot taken",
        detail="Somebody else has the slot {slot_id}, or it was withdrawn. Nothing was booked. Choose another slot.",
        when="A slot is booked that has a booking already, or that its provider has withdrawn.",
        remedy="Choose another slot. One whose booking is rejected or cancelled can be booked again.",
    ),
    errors.SlotHasBegun: ProblemType(
        status=409,
        title="Slot has begun",
        detail="The slot {slot_id} has begun at {slot_start}. Nothing was booked. Choose a later slot.",
        when="A slot is booked that has begun.",
        remedy="Choose a later slot.",
    ),
    errors.SlotsOverlap: ProblemType(
        status=409,
        title="Slots overlap",
        detail=(
            "The provider has the slot {slot_id} from {slot_start} until {slot_end}, at the same time. Nothing was"
            " published. Choose another time, or send `allowOverlap` if both are meant."
        ),
        when="A provider publishes a slot at the time of another one without saying that they may overlap.",
        remedy="Choose another time, or send `allowOverlap: true` if both are meant.",
    ),
    errors.NotFree: ProblemType(
        status=409,
        title="Not free",
        detail=(
            "Requested {asked} of {sku} from {start} until {end}; {available_quantity} free throughout. Nothing was"
            " reserved or changed. Take one of the `alternatives`, or choose another time or fewer units."
        ),
        when="More units of a calendar were requested than are free throughout the period, buffers included.",
        remedy=(
            "Take one of the `alternatives`, or try again when a hold in `conflicts` lapses. `GET"
            " /items/by-id/{item_id}/availability` shows what is free."
        ),
    ),
    errors.OutsideOpeningHours: ProblemType(
        status=409,
        title="Outside opening hours",
        detail=(
            "{sku} is closed for some of the period. When it is open is in `opening_hours`, by date and in the time of"
            " {time_zone}. Nothing was reserved or changed; choose a time within these hours."
        ),
        when="A calendar was requested for a period in which it is closed for some time.",
        remedy="Choose a period within `opening_hours`: the hours of the first days of the period, in `time_zone`.",
    ),
    errors.CapacityInUse: ProblemType(
        status=409,
        title="Capacity in use",
        detail=(
            "{sku} cannot have a capacity of {capacity}: reservations use {in_use} units at some moment from now on."
            " Nothing was changed; reschedule or cancel some of them first."
        ),
        when="A calendar is to have a smaller capacity than reservations use at some moment from now on.",
        remedy="Choose a capacity of at least `in_use`, or reschedule or cancel reservations first.",
    ),
    errors.SkuTaken: ProblemType(
        status=409,
        title="Sku taken",
        detail="An item with the sku {sku} exists already. Choose another sku, or PATCH that item.",
        when="An item is to be created with the sku of another one.",
        remedy="Choose another sku, or PATCH that item.",
    ),
    errors.ReferenceTaken: ProblemType(
        status=409,
        title="Reference taken",
        detail="Another reservation of the client has the reference {external_reference}. Nothing was reserved.",
        when="A reservation is to be made with the `external_reference` of another one of the same client.",
        remedy="Look at that reservation: it may be the one that you want to make.",
    ),
    errors.InsufficientAvailableStock: ProblemType(
        status=409,
        title="Insufficient available stock",
        detail=(
            "The stock of {sku} cannot change by {adjust_quantity_by}: {available_quantity} available, and the other"
            " units belong to reservations. Nothing was changed."
        ),
        when="More units are to be taken away than are available: the other units belong to reservations.",
        remedy="Take fewer units away, or cancel reservations first.",
    ),
    errors.CalendarChanged: ProblemType(
        status=409,
        title="Calendar changed",
        detail="The venue or the time zone of {sku} has just been changed. Nothing was reserved; send it again.",
        when="A calendar was changed at the moment at which a booking was made.",
        remedy="Send the request again.",
    ),
    errors.WrongStatus: ProblemType(
        status=409,
        title="Wrong status",
        detail=(
            "The reservation is {status}, and in this status it cannot be changed in this way. Nothing was changed;"
            " decide again by its status."
        ),
        when="The lifecycle of reservations does not allow this change in the present status.",
        remedy="Decide again by `current_status`. Asking for the status that the reservation has is never refused.",
    ),
    errors.HoldExpired: ProblemType(
        status=409,
        title="Hold expired",
        detail="The hold expired at {expired_at}, and its units are available again. Make a new reservation.",
        when="A hold is to be changed that was not confirmed before its `expires_at`.",
        remedy="Make a new reservation.",
    ),
    errors.HoldTooLong: ProblemType(
        status=409,
        title="Hold too long",
        detail=(
            "A hold lasts for 7 days at most, counted from when it was made. This one may be extended until"
            " {latest_expires_at}. Nothing was changed; extend it by less, or confirm it."
        ),
        when="A hold is to be extended to more than 7 days, counted from when it was made.",
        remedy="Extend it until `latest_expires_at` at most, or confirm it.",
    ),
    errors.StaleVersion: ProblemType(
        status=409,
        title="Stale version",
        detail=(
            "Version {expected_version} was expected, and the reservation has version {current_version}. Nothing was"
            " changed; GET it and decide again."
        ),
        when="`expected_version` in the body is not the current version.",
        remedy=_DECIDE_AGAIN,
    ),
    errors.StalePrecondition: ProblemType(
        status=412,
        title="Stale precondition",
        detail=(
            "If-Match names {if_match}, and the current ETag is {current_etag}. Nothing was changed; GET it and decide"
            " again."
        ),
        when="The header If-Match does not name the current ETag. A weak ETag never matches.",
        remedy=_DECIDE_AGAIN,
    ),
    errors.IdempotencyKeyReused: ProblemType(
        status=409,
        title="Idempotency key reused",
        detail=(
            "The idempotency key {key!r} was used for another request within the last 24 hours. Nothing was changed;"
            " send the first request again as it was, or use a new key."
        ),
        when="The idempotency key was used for another request within the last 24 hours.",
        remedy="Send the first request again as it was, or use a new key.",
    ),
    errors.NoKeys: ProblemType(
        status=409,
        title="No keys for personal data",
        detail=(
            "No personal data is kept here, because there are no keys to encrypt it. Nothing was stored or changed."
            " Send the reservation without it, or have whoever runs Holdfast set PII_KEYS."
        ),
        when="The request has personal data of a guest, or asks for some, and Holdfast runs without `PII_KEYS`.",
        remedy="Leave the personal data out, or have whoever runs Holdfast set `PII_KEYS`.",
    ),
    errors.Busy: ProblemType(
        status=503,
        title="Busy",
        detail="Holdfast is busy. Nothing was changed; send the same request again in {retry_after_seconds} s.",
        when=(
            "Too many requests wait, or a lock or a connection was not to be had in time. This is not `sold-out`:"
            " nothing was decided."
        ),
        remedy=_SEND_AGAIN,
    ),
    errors.TooManyRequests: ProblemType(
        status=429,
        title="Too many requests",
        detail=(
            "You may send {quota} requests within {seconds} s, and have sent them (the limit is {limit}). Nothing was"
            " changed; send the same request again in {retry_after_seconds} s."
        ),
        when=(
            "The sender has used up a limit: `principal` counts the requests of a principal, `address` those from an"
            " address, and the name of an operation those for it."
        ),
        remedy=f"{_SEND_AGAIN} Who has to send more asks whoever runs Holdfast for a higher limit.",
    ),
    errors.FailedTooOften: ProblemType(
        status=429,
        title="Too many requests without valid credentials",
        detail=(
            "From your network address came more than {quota} requests within {seconds} s without valid credentials"
            " (the limit is {limit}). Nothing was changed. Whoever has valid credentials is served all the same: renew"
            " yours, and send the request again in {retry_after_seconds} s."
        ),
        when=(
            "The credentials are missing or wrong, and so were those of many requests from the same address. It may"
            " have many users, who share the limit `failed-authentication`."
        ),
        remedy="Renew your token or your API key, or wait as long as `Retry-After` says.",
    ),
    errors.DatabaseUnavailable: ProblemType(
        status=503,
        title="Database unavailable",
        detail=(
            "The database cannot be reached, or does not answer in time. Nothing was changed; send the same request"
            " again in {retry_after_seconds} s."
        ),
        when="PostgreSQL can't be reached, does not answer in time, or is not migrated for this release.",
        remedy=_SEND_AGAIN,
    ),
    errors.KeysUnavailable: ProblemType(
        status=503,
        title="Keys unavailable",
        detail=(
            "Nobody can say at present whose credentials these are: the keys that they are checked by cannot be read."
            " Nothing was changed; send the same request again in {retry_after_seconds} s."
        ),
        when=(
            "A token or an API key is not known yet, and the keys of the identity provider, or the API keys in the"
            " database, can't be read at present. Those that were read before serve on."
        ),
        remedy=_SEND_AGAIN,
    ),
    errors.OutcomeUnknown: ProblemType(
        status=503,
        title="Outcome unknown",
        detail=(
            "The database did not say whether the request took effect. Send the same request again in"
            " {retry_after_seconds} s with the same Idempotency-Key, so that it cannot take effect twice. If it had"
            " none, look first whether it did."
        ),
        when="PostgreSQL was asked to commit, and did not say whether it did.",
        remedy=f"{_SEND_AGAIN} If the request had none, look first whether it took effect.",
    ),
    errors.GuestUnreadable: ProblemType(
        status=503,
        title="Guest unreadable",
        detail=(
            "The personal data is there, but the key {key_id} that it was encrypted by is not, or is another one."
            " Nothing was lost or changed. Whoever runs Holdfast has to put that key back into PII_KEYS."
        ),
        when="The personal data was encrypted by a key that is not in `PII_KEYS`, or is another one of the same id.",
        remedy="Whoever runs Holdfast puts the key back into `PII_KEYS`. `bin/doctor` names the keys that are missing.",
    ),
    errors.PersonalDataUnavailable: ProblemType(
        status=503,
        title="Personal data unavailable",
        detail=(
            "The service that keeps the keys of personal data can't be reached, or does not answer in time. Nothing was"
            " changed; send the same request again in {retry_after_seconds} s."
        ),
        when="The service of `PII_KEY_SERVICE` can't be reached, or does not answer in time.",
        remedy=f"{_SEND_AGAIN} What has no personal data is served meanwhile.",
    ),
    errors.SearchIncomplete: ProblemType(
        status=503,
        title="Search incomplete",
        detail=(
            "Nobody was found among the guests whose keys are there. But some guests have the key {key_id}, which is"
            " not, or is another one: whether you look for one of them can't be known. Nothing was changed. Whoever"
            " runs Holdfast has to put that key back into PII_KEYS."
        ),
        when="Nobody was found, and there are guests whose key is not in `PII_KEYS`, or is another one of the same id.",
        remedy=(
            "Do not take it for an answer that there is no such guest. Whoever runs Holdfast puts the key back into"
            " `PII_KEYS`. `bin/doctor` names the keys that are missing."
        ),
    ),
}

#: The database answers, and lacks a table or a column. It is unavailable until somebody has migrated it.
NOT_MIGRATED = replace(
    OF_ERRORS[errors.DatabaseUnavailable],
    detail=(
        "The database is not migrated for this release. Nothing was changed. Whoever runs Holdfast has to run"
        " bin/migrate; after that, send the same request again."
    ),
)

#: What is refused before a handler is called, by status.
EARLY: Mapping[int, ProblemType] = {
    problem_type.status: problem_type
    for problem_type in (
        ProblemType(
            status=404,
            title="No such resource",
            detail="No resource has this path. /schema shows the operations.",
            when="Nothing has this path.",
            remedy="`/schema` shows the operations.",
        ),
        ProblemType(
            status=405,
            title="Method not allowed",
            detail="The resource does not support this method. /schema shows the operations.",
            when="The resource does not support this method.",
            remedy="The header Allow lists those that it supports.",
        ),
        ProblemType(
            status=408,
            title="Body too slow",
            detail=f"The body did not arrive within {BODY_SECONDS:g} s. Nothing was changed; send the request again.",
            when=f"The body did not arrive within {BODY_SECONDS:g} s.",
            remedy="Send the request again.",
            field="body",
        ),
        ProblemType(
            status=413,
            title="Body too large",
            detail=(
                f"The body has more than {MAX_BODY_BYTES:,} bytes, or came in more than {MOST_PIECES:,} pieces. Nothing"
                " was changed; send less."
            ),
            when=f"The body has more than {MAX_BODY_BYTES:,} bytes, or came in more than {MOST_PIECES:,} pieces.",
            remedy="Send less, in larger pieces.",
            field="body",
        ),
        ProblemType(
            status=414,
            title="URI too long",
            detail=(
                f"The path has more than {MAX_PATH_BYTES:,} bytes, or the query string more than {MAX_QUERY_BYTES:,}."
                " Send less."
            ),
            when=f"The path has more than {MAX_PATH_BYTES:,} bytes, or the query string more than {MAX_QUERY_BYTES:,}.",
            remedy="Send fewer or shorter parameters.",
        ),
        ProblemType(
            status=415,
            title="Unsupported content type",
            detail="The body must be JSON. Nothing was changed; send it with Content-Type: application/json.",
            when="The body is not JSON by its Content-Type.",
            remedy="Send it with `Content-Type: application/json`.",
            field="Content-Type",
        ),
    )
}

BUG = ProblemType(
    status=500,
    title="Internal error",
    detail=(
        "This is a fault of Holdfast and has been logged. Send the same request again, with the same Idempotency-Key."
    ),
    when="A fault of Holdfast, which has been logged under the id of the request.",
    remedy="Send the same request again, with the same Idempotency-Key. Report it with its `request_id`.",
)

ALL: Sequence[ProblemType] = sorted((*OF_ERRORS.values(), *EARLY.values(), BUG), key=lambda one: (one.status, one.slug))


#: The name of a fact that has another one in problems: `status` is that of the response.
MEMBER_OF = {"status": "current_status", "retry_after_seconds": "retry_after"}


def facts_of(error: type[HoldfastError]) -> Sequence[str]:
    """Return the members that the problem of an error has beside those that every problem has."""
    named = [MEMBER_OF.get(field.name, field.name) for field in fields(error)]  # type: ignore[arg-type]
    return [*named, "field"] if issubclass(error, NotFound) else named


#: The members that each type has beside those that every problem has.
FACTS: Mapping[ProblemType, Sequence[str]] = {
    **{one: ["field"] if one.field else [] for one in ALL},
    **{one: facts_of(error) for error, one in OF_ERRORS.items()},
}
