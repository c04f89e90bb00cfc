"""`null:` accepts every event and discards it. It is for benchmarks."""

from collections.abc import Sequence

from domain.outbox import DELIVERED, Outcome, Route, Row
from domain.runtime.settings import Settings
from worker.ordering.pace import Pace


class Null:
    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        pass

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return [DELIVERED] * len(rows)

    def close(self) -> None:
        pass
