"""The inventory service: it holds what a booking needs outside, and releases it."""

from collections.abc import Mapping
from typing import Any

from worker.steps.service import ServiceStep, name_of


class InventoryStep(ServiceStep):
    """A step. The service answers a hold with its `inventory_reservation_id`."""

    def facts_of(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"inventory_reservation_id": name_of(answer, "inventory_reservation_id")}
