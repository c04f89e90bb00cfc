"""`null:` takes everything and keeps nothing. For benchmarks."""

from collections.abc import Sequence

from domain.outbox import Delivered, Outcome, Row


class Null:
    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return [Delivered()] * len(rows)

    def close(self) -> None:
        pass
