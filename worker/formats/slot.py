"""The messages of the slot contract: 3-slots-providers-sqs.md, "SQS Events".

The contract describes BOOKING_CREATED and BOOKING_CONFIRMED. Messages of every other event type have the members of
BOOKING_CREATED, the status and the reason.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from domain.outbox import Row
from worker.formats.envelope import trace
from worker.formats.message import Message


def write(row: Row) -> Message:
    event_type = row.type.removeprefix("slot_").replace(".", "_").upper()
    payload = json.loads(row.payload)
    common = {"eventType": event_type, "timestamp": _time(row.created_at)}
    body = {"bookingId": str(row.aggregate_id)} | _members(event_type, payload, row) | common
    return Message(json.dumps(body), attributes={**trace(row), **_attributes(event_type, payload, row)})


def _members(event_type: str, payload: Mapping[str, Any], row: Row) -> dict[str, Any]:
    provider = {"providerId": payload.get("provider_id")}
    if event_type == "BOOKING_CONFIRMED":
        # The event is recorded in the transaction that confirms, so its time is that of the confirmation.
        return provider | {"acceptedAt": _time(row.created_at)}
    members = {"userId": payload.get("guest_id")} | provider | _slot(payload)
    if event_type == "BOOKING_CREATED":
        return members
    status = payload.get("status")
    return members | {"status": status and status.lower(), "reason": payload.get("reason")}


def _slot(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the slot and its period. An item of stock has no period."""
    start, end = payload.get("start"), payload.get("end")
    return {
        "slotId": payload.get("sku"),
        "slotStart": start and _time(datetime.fromisoformat(start)),
        "slotEnd": end and _time(datetime.fromisoformat(end)),
    }


def _attributes(event_type: str, payload: Mapping[str, Any], row: Row) -> Mapping[str, str]:
    attributes = {"EventType": event_type, "BookingId": str(row.aggregate_id), "ProviderId": payload.get("provider_id")}
    # SQS refuses a message with an empty attribute.
    return {name: value for name, value in attributes.items() if value}


def _time(moment: datetime) -> str:
    """Write a time as the contract does: UTC, in whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
