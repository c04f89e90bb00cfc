"""The guards of calendars: what keeps a moment from being sold twice, and what is free from being refused."""

from tests.faults.mutant import Mutant

GUARD = "calendars"

CALENDARS = "tests/domain/calendars"
RESERVE, LOCKS, SERVER = f"{CALENDARS}/test_reserve.py", f"{CALENDARS}/test_locks.py", "tests/api/grpc/test_server.py"

#: The tests that must notice when a guard is missing.
SUITE = (RESERVE, LOCKS, f"{CALENDARS}/test_capacity.py", f"{CALENDARS}/test_giving_back.py", SERVER)

ITEMS, OCCUPANCIES, RULES = "domain/items/stock.py", "domain/calendars/occupancies.py", "domain/calendars/rules.py"
TIMELINE, BOOK = "domain/calendars/capacity.py", "domain/reservations/capacity.py"
RESCHEDULE = "domain/reservations/reschedule.py"


def _mutant(title: str, path: str, text: str, without: str, noticed_by: str) -> Mutant:
    return Mutant(guard=GUARD, title=title, path=path, text=text, without=without, noticed_by=noticed_by)


MUTANTS = (
    _mutant(
        "what is free is counted without the lock of the item",
        ITEMS,
        '_LOCK.add_columns(func.clock_timestamp().label("at")).with_for_update(key_share=True, skip_locked=True)',
        'select(items).where(_named).add_columns(func.clock_timestamp().label("at"))',
        f"{LOCKS}::test_a_calendar_that_another_request_has_locked_is_not_reserved[2]",
    ),
    _mutant(
        "a reschedule does not lock the calendar",
        RESCHEDULE,
        "items.lock(session, [line.item_id for line in one.lines])",
        "[items.get(session, line.item_id) for line in one.lines]",
        f"{LOCKS}::test_a_reschedule_waits_for_the_lock_of_the_calendar",
    ),
    _mutant(
        "the time of one unit is not exclusive",
        OCCUPANCIES,
        '"is_exclusive": taken.item.capacity == 1',
        '"is_exclusive": False',
        f"{LOCKS}::test_the_time_of_a_calendar_with_one_unit_is_exclusive[1-True]",
    ),
    _mutant(
        "a request whose time was taken without a lock fails",
        "domain/reservations/reserve.py",
        "case calendars.TIME_IS_EXCLUSIVE:",
        'case "no_constraint":',
        f"{LOCKS}::test_a_request_for_time_that_was_taken_without_a_lock_is_decided_again",
    ),
    _mutant(
        "a reschedule to time that was taken without a lock fails",
        "domain/reservations/changes.py",
        "if constraint_of(error) != TIME_IS_EXCLUSIVE:",
        "if error:",
        f"{LOCKS}::test_a_reschedule_to_time_that_was_taken_without_a_lock_is_refused",
    ),
    _mutant(
        "a lapsed hold keeps its time",
        OCCUPANCIES,
        "occupancies.c.held_until <= CLOCK, False",
        "occupancies.c.held_until < occupancies.c.held_until, False",
        f"{RESERVE}::test_the_time_of_a_lapsed_hold_is_free[1]",
    ),
    _mutant(
        "what never lapses counts as lapsed",
        OCCUPANCIES,
        "occupancies.c.held_until <= CLOCK, False",
        "occupancies.c.held_until <= CLOCK, True",
        f"{RESERVE}::test_a_hold_without_end_never_lapses",
    ),
    _mutant(
        "a lapsed hold is free before it has expired",
        BOOK,
        "claim.quantity <= self._free(self._all, claim)",
        "claim.quantity <= self._free(self._kept, claim)",
        f"{RESERVE}::test_a_lapsed_hold_that_is_being_confirmed_is_not_taken_for_free",
    ),
    _mutant(
        "there is no buffer before a reservation",
        RULES,
        "period.widened(*buffers(item))",
        "period.widened(timedelta(), buffers(item)[1])",
        f"{RESERVE}::test_between_two_reservations_lie_both_buffers",
    ),
    _mutant(
        "there is no buffer after a reservation",
        RULES,
        "period.widened(*buffers(item))",
        "period.widened(buffers(item)[0], timedelta())",
        f"{RESERVE}::test_between_two_reservations_lie_both_buffers",
    ),
    _mutant(
        "a period includes the moment of its end",
        TIMELINE,
        "return first, bisect_left(self._times, end, first)",
        "return first, bisect_right(self._times, end, first)",
        f"{CALENDARS}/test_capacity.py::test_what_touches_is_not_in_use_at_the_same_time",
    ),
    _mutant(
        "a period does not include the moment of its start",
        TIMELINE,
        "return self._used[place - 1] if place else 0",
        "return 0",
        f"{RESERVE}::test_a_room_is_reserved_once_at_a_time",
    ),
    _mutant(
        "what is used at any moment of the period is added up",
        TIMELINE,
        "max(at_start, *self._used[first:until])",
        "sum([at_start, *self._used[first:until]])",
        f"{RESERVE}::test_what_counts_is_the_greatest_use_at_one_moment",
    ),
    _mutant(
        "requests of one set do not see each other",
        BOOK,
        "self._change(claim, claim.quantity)",
        "pass",
        f"{RESERVE}::test_requests_of_one_set_see_each_other",
    ),
    _mutant(
        "time outside the opening hours is sold",
        BOOK,
        "return refuse_outside(self.item, claim.period)",
        "return None",
        f"{RESERVE}::test_time_outside_the_opening_hours_is_refused_with_them",
    ),
    _mutant(
        "a reservation is in the way of its own reschedule",
        RESCHEDULE,
        "if other.reservation_id != one.id",
        "if other.reservation_id",
        f"{RESERVE}::test_a_reservation_is_rescheduled_if_the_new_time_is_free",
    ),
    _mutant(
        "no other reservation is in the way of a reschedule",
        RESCHEDULE,
        "if other.reservation_id != one.id",
        "if not other.reservation_id",
        f"{LOCKS}::test_a_reschedule_that_has_waited_sees_what_was_taken_meanwhile",
    ),
    _mutant(
        "a reservation with more units for less time is not checked",
        RESCHEDULE,
        "one.period.contains(after.period) and after.quantity <= one.quantity",
        "one.period.contains(after.period)",
        f"{CALENDARS}/test_giving_back.py::test_a_shorter_time_with_more_units_is_checked",
    ),
    _mutant(
        "a block takes no time",
        "domain/reservations/taken.py",
        "if period is None:",
        'if period is None or made.status == "BLOCKED":',
        f"{RESERVE}::test_a_block_keeps_everybody_out_until_it_is_cancelled",
    ),
    _mutant(
        "time is not given back",
        OCCUPANCIES,
        'session.execute(_DELETE, {"ids": list(reservation_ids)})',
        "pass",
        f"{RESERVE}::test_time_that_was_given_up_is_free_again[CANCELLED]",
    ),
    _mutant(
        "the capacity becomes less than what is in use",
        "domain/calendars/settings.py",
        "if in_use > capacity:",
        "if not capacity:",
        f"{RESERVE}::test_the_capacity_never_becomes_less_than_what_is_in_use_from_now_on",
    ),
    _mutant(
        "a call over gRPC has no key",
        "api/grpc/reservations.py",
        "            key=key,\n",
        "            key=None,\n",
        f"{SERVER}::test_a_call_with_a_key_gets_its_first_answer_again",
    ),
    _mutant(
        "a key over gRPC is for any call",
        "api/grpc/reservations.py",
        'hash_of(request, ttl) if key else ""',
        '""',
        f"{SERVER}::test_a_key_is_for_one_call_only",
    ),
)
