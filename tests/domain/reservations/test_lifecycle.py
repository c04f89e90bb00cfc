"""The lifecycle: the changes of status and of fields that are allowed, and what each status does to stock."""

from itertools import product

import pytest

from domain.reservations.lifecycle import CONSUMING, FREEING, HOLDING, RELEASING, TRANSITIONS, Status, allows

#: DESIGN §3, written a second time.
ALLOWED = {
    Status.PENDING: {Status.CONFIRMED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED},
    Status.CONFIRMED: {Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW},
    Status.CHECKED_IN: {Status.COMPLETED, Status.CANCELLED},
    Status.BLOCKED: {Status.CANCELLED},
}
PAIRS = [(current, to) for current, to in product(Status, Status)]
LEGAL = [(current, to) for current, to in PAIRS if to in ALLOWED.get(current, ())]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]


@pytest.mark.parametrize(("current", "to"), LEGAL)
def test_the_table_allows_every_change_of_the_design(current: Status, to: Status) -> None:
    assert allows(current, to)


@pytest.mark.parametrize(("current", "to"), ILLEGAL)
def test_the_table_allows_no_other_change(current: Status, to: Status) -> None:
    assert not allows(current, to)


@pytest.mark.parametrize("current", list(Status))
def test_a_hold_can_be_extended_and_everything_that_has_not_ended_can_have_another_note(current: Status) -> None:
    assert allows(current, None, ["expires_at"]) == (current is Status.PENDING)
    assert allows(current, None, ["note"]) == (current in ALLOWED)
    assert allows(current, Status.CANCELLED, ["note"]) == (current in ALLOWED)
    assert not allows(current, None, ["note", "expires_at"]) or current is Status.PENDING


def test_no_other_field_can_be_changed() -> None:
    with pytest.raises(KeyError):
        allows(Status.PENDING, None, ["item_id"])


def test_every_status_either_holds_or_consumes_or_releases_stock() -> None:
    assert set(Status) == HOLDING | CONSUMING | RELEASING
    assert len(HOLDING) + len(CONSUMING) + len(RELEASING) == len(Status)
    assert set(TRANSITIONS) == HOLDING


def test_time_is_free_again_when_units_are_but_for_a_guest_who_did_not_come() -> None:
    assert {Status.NO_SHOW} == RELEASING - FREEING


@pytest.mark.parametrize("current", list(Status))
def test_what_has_not_ended_can_be_rescheduled(current: Status) -> None:
    for name in ("starts_at", "ends_at", "quantity"):
        assert allows(current, None, [name]) == (current in ALLOWED)
