"""The invariant of the feed: its positions have no gaps."""

import pytest

from domain.invariants.feed import INVARIANTS
from tests.domain.feed.test_prune import pruned
from tests.support.builders import Db
from tests.support.feed import appended, grown_old
from tests.support.invariants import Violation, execute, violations

(GAPS,) = (invariant.title for invariant in INVARIANTS)

A_GAP = """
    INSERT INTO feed_events (position, event_id, type, aggregate_id, payload, created_at)
    SELECT n, gen_random_uuid(), 'booking.created', gen_random_uuid(), '{}', now() FROM unnest(ARRAY[3, 5, 6]) AS n
"""

VIOLATIONS: list[Violation] = [(GAPS, A_GAP)]


def test_a_feed_that_is_appended_to_and_pruned_has_no_gaps(db: Db) -> None:
    appended(db, 5)
    grown_old(db, up_to=3)
    pruned(db)
    appended(db)
    execute(db, "DELETE FROM outbox")

    assert violations(db) == {}


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]
