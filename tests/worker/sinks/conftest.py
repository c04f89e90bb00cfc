"""What holds for every sink."""

import pytest

MODULES = (
    "worker.sinks.redis.sink",
    "worker.sinks.sqs.sink",
    "worker.ordering.ordered_batches",
    "worker.ordering.batch_of_calls",
)


@pytest.fixture(autouse=True)
def long_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch take its time on a busy machine. A test about the time of a batch sets its own."""
    for module in MODULES:
        monkeypatch.setattr(f"{module}.BATCH_SECONDS", 60.0)
