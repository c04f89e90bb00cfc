"""Values that are kept in memory and read again: what is known of one while it can't be read."""

import threading
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from api.auth import refreshed
from api.auth.refreshed import Refreshed
from tests.support.waiting import PATIENCE_SECONDS, wait_until


class Source:
    """A source that can hang, as a resolver of names does whose server does not answer."""

    def __init__(self) -> None:
        self.calls = 0
        self.answers = threading.Event()
        self.answers.set()

    def read(self) -> int:
        self.calls += 1
        self.answers.wait()
        return self.calls


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.answers.set()


@pytest.fixture
def refresh(source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Refreshed[int]]]:
    """Start to read the source, seldom without being asked to."""
    monkeypatch.setattr(refreshed, "OVERDUE_SECONDS", 0.1)
    started = []

    def start() -> Refreshed[int]:
        started.append(Refreshed("numbers", source.read, 0, every_seconds=3_600, soonest_seconds=0))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_value_is_not_current_while_somebody_waits_in_vain_for_a_new_one(
    source: Source, refresh: Callable[[], Refreshed[int]]
) -> None:
    value = refresh()
    wait_until("it has been read", lambda: value.is_current)
    source.answers.clear()

    first = value.again()
    wait_until("the call has begun", lambda: source.calls == 2)
    second = value.again()
    wait_until("it hangs", lambda: not value.is_current)
    waiting = first.done(), second.done()
    source.answers.set()

    assert (value.value, waiting) == (1, (False, False))
    second.result(PATIENCE_SECONDS)
    assert (first.done(), value.is_current, value.value) == (True, True, 3)


def test_a_call_that_hangs_is_logged_once(source: Source, refresh: Callable[[], Refreshed[int]]) -> None:
    source.answers.clear()
    value = refresh()

    with capture_logs() as logged:
        wait_until("it is logged", lambda: value.again() and logged)
        value.again()

    assert [(one["event"], one["value"]) for one in logged] == [("refreshed.hangs", "numbers")]


def test_nobody_who_gives_up_waiting_keeps_the_others_from_a_new_value(
    source: Source, refresh: Callable[[], Refreshed[int]]
) -> None:
    source.answers.clear()
    value = refresh()
    one = value.again()

    assert not one.cancel()
    source.answers.set()

    one.result(PATIENCE_SECONDS)
    value.again().result(PATIENCE_SECONDS)
