"""The payment service: it takes the payment of a booking, and gives it back."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from worker.http.client import Response
from worker.steps.service import ServiceStep, name_of


class PaymentStep(ServiceStep):
    """A step. The service answers with its `payment_intent_id`, and refuses with a 4xx, such as 402."""

    def facts_of(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"payment_intent_id": name_of(answer, "payment_intent_id")}

    def refuses(self, response: Response) -> bool:
        # Elsewhere it says that our own account is not paid for; here, that this guest's card was declined.
        return response.status == HTTPStatus.PAYMENT_REQUIRED or super().refuses(response)
