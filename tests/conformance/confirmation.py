"""The harness of the confirmation step: a service that confirms and releases holds."""

import json

from tests.conformance.webhook import WebhookHarness


class ConfirmationHarness(WebhookHarness):
    id_header = "idempotency-key"

    def confirmed(self) -> set[str]:
        """Return the ids of the reservations that count as confirmed at the service."""
        last = {}
        for body in self.accepted():
            asked = json.loads(body)
            last[asked["payload"]["booking_id"]] = asked["event_type"]
        return {booking_id for booking_id, event_type in last.items() if event_type == "reservation_confirm"}
