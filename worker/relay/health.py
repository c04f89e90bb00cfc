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
    _recovered_at: datetime = NEVER

    def begin_recovery(self, recovered_at: datetime | None) -> None:
        """If it has recovered, and that was not known yet: call it step by step, and blame no row meanwhile."""
        if recovered_at and recovered_at > self._recovered_at:
            self._recovered_at = recovered_at
            self.pace.begin_recovery()
            self.history.begin_recovery(recovered_at)
