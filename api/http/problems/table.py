"""The table of problems: the status and the words of each type.

The responses, the OpenAPI document, the pages under /problems and docs/problems.md are all made from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from api.http.limits import BODY_SECONDS, MAX_BODY_BYTES, MAX_PATH_BYTES, MAX_QUERY_BYTES, MOST_PIECES
from api.http.problems.types import ProblemType
from domain.runtime import errors
from domain.runtime.errors import HoldfastError, NotFound, Unavailable

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
    errors.UnknownItem: ProblemType(
        status=404,
        title="Unknown item",
        detail="No item has the id or sku {item}. GET /items lists all items.",
        when="No item has the id or the sku that the request names.",
        remedy="`GET /items` lists all items. A sku goes into a path percent-encoded: `/` is `%2F`.",
    ),
    errors.UnknownReservation: ProblemType(
        status=404,
        title="Unknown reservation",
        detail="No reservation has the id {reservation_id}.",
        when="No reservation has the id that the request names.",
        remedy="`GET /reservations` lists reservations.",
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


#: The name of a fact whose own name is taken: `status` is that of the response.
MEMBER_OF = {"status": "current_status"}


def facts_of(error: type[HoldfastError]) -> Sequence[str]:
    """Return the members that the problem of an error has beside those that every problem has."""
    if issubclass(error, Unavailable):
        return ["retry_after"]
    named = [MEMBER_OF.get(field.name, field.name) for field in fields(error)]  # type: ignore[arg-type]
    return [*named, "field"] if issubclass(error, NotFound) else named


#: The members that each type has beside those that every problem has.
FACTS: Mapping[ProblemType, Sequence[str]] = {
    **{one: ["field"] if one.field else [] for one in ALL},
    **{one: facts_of(error) for error, one in OF_ERRORS.items()},
}
