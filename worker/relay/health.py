"""The health of a destination, as this process sees it: what it lately answered, and how fast it may be called."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from domain.outbox import History
from worker.ordering.pace import Pace

NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class Health:
    """There is one for each destination of a process. It is kept in memory, and begins anew with the process."""

    pace: Pace
    history: History = field(default_factory=History)
    _let_up_at: datetime = NEVER

    def let_up(self, recovered_at: datetime | None) -> None:
        """Let the destination be called step by step, and blame no row, if it recovered and that was not known yet."""
        if recovered_at and recovered_at > self._let_up_at:
            self._let_up_at = recovered_at
            self.pace.let_up()
            self.history.let_up(recovered_at)
