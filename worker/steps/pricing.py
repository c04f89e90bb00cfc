"""The pricing service: it says what a booking costs. While it is down, the list price counts."""

import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from domain.bookings import AMOUNTS, Price, Source
from domain.outbox import Declined, Failed, Outcome, Row, Unreachable, error_of
from domain.runtime.errors import Invalid
from worker.steps.service import BadAnswer, ServiceStep

#: After so many calls in a row that were not answered, the service is down: for their item if all are of one.
FAILURES = 5

EVERY = ""

#: Then it is left alone for this time: bookings have their list price at once.
DOWN_SECONDS = 5.0

#: What is noted of an event whose service is left alone.
LEFT_ALONE = "the pricing service did not answer the last calls, and is left alone for a moment"


class PricingStep(ServiceStep):
    """A step. The service answers with a `total_price` and a `currency`, and may say what the total is made of.

    A booking of an item with a list price is asked about once: whatever the answer is, if it is not a price, the list
    price counts. Without one, the service is asked again until the last attempt.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = threading.Lock()
        #: The skus of the last calls in a row that were not answered.
        self._failed: deque[str] = deque(maxlen=FAILURES)
        #: The sku for which the service is left alone until then, EVERY for all.
        self._left_alone, self._until = EVERY, 0.0

    def facts_of(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        given = {name: answer[name] for name in (*AMOUNTS, "currency") if answer.get(name) is not None}
        if not all(isinstance(value, str) for value in given.values()):
            raise BadAnswer('amounts must be decimal digits in quotes, such as "12.50"')
        try:
            return {"price": Price.of(**given), "price_source": Source.QUOTED}
        except TypeError:
            raise BadAnswer("total_price and currency are required") from None
        except Invalid as error:
            raise BadAnswer(f"{error.field}: {error.reason}") from None

    def ask(self, row: Row) -> Outcome:
        outcome = self._outcome(row)
        if not isinstance(outcome, Unreachable):
            return outcome
        has_list_price = json.loads(row.payload)["amount"] is not None
        return Declined(outcome.error) if has_list_price else Failed(outcome.error, outcome.retry_after)

    def _outcome(self, row: Row) -> Outcome:
        sku = json.loads(row.payload)["sku"]
        with self._lock:
            if time.monotonic() < self._until and self._left_alone in (EVERY, sku):
                return Unreachable(LEFT_ALONE)
        outcome = super().ask(row)
        with self._lock:
            if not error_of(outcome):
                self._failed.clear()
            else:
                self._failed.append(sku)
                if len(self._failed) == FAILURES:
                    # It may be able to answer for others.
                    self._left_alone = EVERY if len({*self._failed}) > 1 else sku
                    self._until = time.monotonic() + DOWN_SECONDS
        return outcome
