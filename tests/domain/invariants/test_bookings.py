"""The invariants of bookings: what outside services did for them agrees with what they are."""

import pytest

from domain.invariants.bookings import INVARIANTS
from tests.support.builders import Db
from tests.support.invariants import Violation, execute, violations

#: A reservation of that status becomes a booking with the payment in that state.
_BOOKING = """
    WITH chosen AS (SELECT id FROM reservations WHERE status = '{status}' LIMIT 1),
    named AS (
        UPDATE reservations SET booking_reference = 'BR-20300503-A3B9C2' FROM chosen
        WHERE reservations.id = chosen.id RETURNING reservations.id
    ){more}
    INSERT INTO bookings (reservation_id, venue_name, time_zone, payment) SELECT id, 'Vela', 'UTC', '{state}' FROM named
"""
_DEAD = """, dead AS (
        INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, dead_at)
        SELECT gen_random_uuid(), 'confirmation', 0, id, 'payment_refund', '{}', now() FROM named
    )
"""

LEFT_OVER, UNASKED, NOT_UNDONE = (one.title for one in INVARIANTS)

VIOLATIONS: list[Violation] = [
    (LEFT_OVER, _BOOKING.format(status="CANCELLED", state="done", more="")),
    (UNASKED, _BOOKING.format(status="COMPLETED", state="asked", more="")),
    (NOT_UNDONE, _BOOKING.format(status="CANCELLED", state="not-undone", more=_DEAD)),
]


@pytest.mark.parametrize(("invariant", "statement"), VIOLATIONS)
def test_a_violation_is_found_and_no_other(used: Db, invariant: str, statement: str) -> None:
    execute(used, statement)

    assert list(violations(used)) == [invariant]
