"""The metrics over HTTP: they are fresh, and however many ask for them, they are rendered once a second."""

import re
from collections.abc import Iterator

import pytest

from api.health.exposition import RENDERED_EVERY_SECONDS
from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving
from tests.support.callers import Callers, getting

pytestmark = [pytest.mark.slow, pytest.mark.timed]

#: Those who ask, one request after the other each.
ASKING = 20

#: For how long they ask, in seconds.
WHILE_SECONDS = 3.0


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[Served]:
    """An API of its own, as what it counts is looked at."""
    with serving() as served:
        yield served


def requests_shown(text: str) -> float:
    """Return how often the metrics themselves were answered, as they say."""
    found = re.search(r'^holdfast_requests_total{operation="metrics",status="200"} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_metrics_are_rendered_once_a_second_for_all_who_ask(served: Served) -> None:
    with Callers(served.port, [getting("/metrics")] * ASKING) as asking:
        answers = asking.during(WHILE_SECONDS)

    print(answers)
    texts = {answer.body for answer in answers.answers}
    assert set(answers.statuses) == {200}
    assert 2 <= len(texts) <= WHILE_SECONDS / RENDERED_EVERY_SECONDS + 1
    assert len(answers.answers) >= 2 * ASKING


def test_metrics_have_what_was_answered_before_they_were_asked_for(served: Served) -> None:
    first, second = (requests_shown(served.client.get("/metrics").text) for _ in range(2))

    assert second == first + 1
