"""The guards of the product: how each is taken away, and which tests must notice. Those of the outbox are here."""

from collections.abc import Mapping, Sequence

from tests.faults import booking_guards, calendar_guards, weather_guards
from tests.faults.mutant import Mutant

DELIVERY, RELAY = "tests/domain/outbox/delivery", "tests/worker/relay"

FEED, OPERATIONS = "tests/domain/feed", "tests/domain/outbox/operations"

MODELS = ("tests/domain/outbox/test_outbox_model.py", f"{RELAY}/test_relay_model.py")

#: The tests that must notice when a guard is missing. They start no processes.
SUITES: Mapping[str, Sequence[str]] = {
    "fence": (
        f"{DELIVERY}/test_fence.py",
        f"{DELIVERY}/test_settle.py",
        f"{DELIVERY}/test_claim.py",
        f"{DELIVERY}/test_lanes.py",
        f"{RELAY}/test_leases.py",
        f"{OPERATIONS}/test_burial.py",
        f"{DELIVERY}/test_late_calls.py",
        f"{RELAY}/test_lanes_together.py",
        *MODELS,
    ),
    "order": (
        f"{DELIVERY}/test_fetch.py",
        f"{DELIVERY}/test_claim.py",
        f"{DELIVERY}/test_lanes.py",
        f"{DELIVERY}/test_row_updates.py",
        "tests/worker/ordering/test_ordered_calls.py",
        f"{DELIVERY}/test_settle.py",
        f"{RELAY}/test_relay.py",
        f"{DELIVERY}/test_low_watermark.py",
        f"{DELIVERY}/test_commit_horizon.py",
        f"{OPERATIONS}/test_replay.py",
        f"{DELIVERY}/test_late_calls.py",
        *MODELS,
    ),
    "skip-locked": (f"{DELIVERY}/test_claim.py", f"{DELIVERY}/test_lanes.py", f"{RELAY}/test_leases.py"),
    "feed": (f"{FEED}/test_append.py", f"{FEED}/test_pages.py", f"{FEED}/test_prune.py"),
    "event-id": (
        "tests/domain/outbox/test_record.py",
        "tests/worker/sinks/test_log.py",
        "tests/worker/sinks/test_webhook.py",
        "tests/worker/steps/test_confirmation.py",
    ),
    booking_guards.GUARD: booking_guards.SUITE,
    calendar_guards.GUARD: calendar_guards.SUITE,
    weather_guards.GUARD: weather_guards.SUITE,
}


SETTLE, CLAIM, LANES, FETCH, COMMIT_HORIZON = (
    f"domain/outbox/delivery/{name}.py" for name in ("settle", "claim", "lanes", "fetch", "commit_horizon")
)

SETTLEMENT = "domain/outbox/delivery/settlement.py"

#: How the settling of a batch finds out whether its lane is still ours, and how that of the last batch does.
FENCE = "at = fence(session, lane)"
LAST_FENCE = "at = release(session, leased[0], settled_up_to=settled_up_to[leased[0]])"

#: What the fence of a lane that is ours would return.
NOW = "__import__('domain.runtime.database').runtime.database.now(session)"

#: An id that no earlier delivery had.
ANOTHER_ID = '__import__("uuid").uuid4()'

MUTANTS = (
    Mutant(
        guard="fence",
        title="settling a batch ignores whether the lane is still ours",
        path=SETTLE,
        text=FENCE,
        without=f"{FENCE} or {NOW}",
        noticed_by=f"{DELIVERY}/test_fence.py::test_a_worker_that_lost_its_lease_can_not_settle",
    ),
    Mutant(
        guard="fence",
        title="settling the last batch ignores whether the lane is still ours",
        path=SETTLE,
        text=LAST_FENCE,
        without=f"{LAST_FENCE} or {NOW}",
        noticed_by=f"{RELAY}/test_relay.py::test_a_run_that_lost_its_lease_writes_nothing_and_counts_its_rows_as_fenced",
    ),
    Mutant(
        guard="fence",
        title="fence and release compare the holder alone",
        path=LANES,
        text='lanes.c.epoch == bindparam("claimed")',
        without='bindparam("claimed", type_=BigInteger).is_not(None)',
        noticed_by=f"{DELIVERY}/test_fence.py::test_the_fence_compares_the_epoch",
    ),
    Mutant(
        guard="fence",
        title="fence and release compare the epoch alone",
        path=LANES,
        text='lanes.c.holder == bindparam("by")',
        without='bindparam("by", type_=String).is_not(None)',
        noticed_by=f"{DELIVERY}/test_fence.py::test_the_fence_compares_the_holder",
    ),
    Mutant(
        guard="fence",
        title="fence and release compare neither",
        path=LANES,
        text='.where(lanes.c.epoch == bindparam("claimed"), lanes.c.holder == bindparam("by"))',
        without='.where(bindparam("claimed", type_=BigInteger) > 0, bindparam("by", type_=String) > "")',
        noticed_by=f"{DELIVERY}/test_fence.py::test_a_worker_that_lost_its_lease_can_not_settle",
    ),
    Mutant(
        guard="fence",
        title="a claim does not raise the epoch",
        path=CLAIM,
        text='"epoch": lanes.c.epoch + 1',
        without='"epoch": lanes.c.epoch',
        noticed_by=f"{DELIVERY}/test_fence.py::test_the_fence_compares_the_epoch",
    ),
    Mutant(
        guard="fence",
        title="a lost lease can be renewed",
        path=LANES,
        text="        .where(lanes.c.epoch == claims.c.epoch, lanes.c.holder == claims.c.holder)\n",
        without="",
        noticed_by=f"{DELIVERY}/test_fence.py::test_a_lease_that_was_lost_can_not_be_renewed",
    ),
    Mutant(
        guard="fence",
        title="a lane can be claimed while it is leased",
        path=CLAIM,
        text="    .where(_is_free)\n",
        without="",
        noticed_by=f"{DELIVERY}/test_fence.py::test_releasing_a_lane_that_was_lost_has_no_effect",
    ),
    Mutant(
        guard="fence",
        title="an event is buried and its worker keeps the lane",
        path="domain/outbox/operations/burial.py",
        text="        _revoke(session, {(row.destination, row.lane) for row in buried})\n",
        without="",
        noticed_by=f"{OPERATIONS}/test_burial.py::"
        "test_an_answer_that_was_not_settled_yet_is_dropped_and_the_lane_is_free",
    ),
    Mutant(
        guard="order",
        title="a batch of a replay has a part of a reservation",
        path="domain/outbox/operations/bulk_change.py",
        text="where(*matching, is_theirs)",
        without="where(*matching, is_theirs).limit(limit)",
        noticed_by=f"{OPERATIONS}/test_replay.py::"
        "test_no_new_event_passes_between_the_replayed_ones_of_its_reservation[2]",
    ),
    Mutant(
        guard="order",
        title="nothing is known to wait for an earlier row",
        path=FETCH,
        text='_waits_until.label("waits_until")',
        without='cast(None, outbox.c.available_at.type).label("waits_until")',
        noticed_by=f"{DELIVERY}/test_fetch.py::test_a_later_row_of_an_aggregate_that_waits_comes_with_the_time_of_the_first_one",
    ),
    Mutant(
        guard="order",
        title="a row waits for later ones, too",
        path=FETCH,
        text="to=outbox.c.id)",
        without="to=outbox.c.id + 1_000_000)",
        noticed_by=f"{DELIVERY}/test_fetch.py::test_a_row_does_not_wait_for_a_later_one",
    ),
    Mutant(
        guard="order",
        title="a row waits for other aggregates, too",
        path=FETCH,
        text="(outbox.c.destination, outbox.c.aggregate_id)",
        without="(outbox.c.destination, _earlier.c.aggregate_id)",
        noticed_by=f"{DELIVERY}/test_fetch.py::test_a_later_row_of_an_aggregate_that_waits_comes_with_the_time_of_the_first_one",
    ),
    Mutant(
        guard="order",
        title="a run reads rows that are newer than its claim",
        path=FETCH,
        text='bindparam("newest", type_=BigInteger)',
        without='bindparam("newest", type_=BigInteger) + 1_000_000',
        noticed_by=f"{RELAY}/test_relay.py::test_a_row_that_commits_late_is_not_overtaken_by_the_next_one_of_its_aggregate",
    ),
    Mutant(
        guard="order",
        title="a lane is read in any order",
        path=FETCH,
        text='    .order_by(*BY_LANE)\n    .limit(bindparam("limit"))\n)\n_lanes',
        without='    .order_by(outbox.c.id.desc())\n    .limit(bindparam("limit"))\n)\n_lanes',
        noticed_by=f"{DELIVERY}/test_fetch.py::test_a_lane_is_read_in_order_of_id_up_to_the_limit",
    ),
    Mutant(
        guard="order",
        title="a low watermark rises above rows that may commit late",
        path=COMMIT_HORIZON,
        text="return self._ended.newest if self._ended and is_over else 0",
        without="return now.newest",
        noticed_by=f"{RELAY}/test_relay.py::test_a_row_that_commits_late_is_not_overtaken_by_the_next_one_of_its_aggregate",
    ),
    Mutant(
        guard="order",
        title="a low watermark rises by a view that is younger than the claim",
        path=COMMIT_HORIZON,
        text="is_over = self._ended is not None and self._ended.begun_below <= now.ended_below",
        without="is_over = True",
        noticed_by=f"{DELIVERY}/test_commit_horizon.py::test_a_view_that_is_older_than_the_one_another_thread_has_shown_proves_nothing_complete",
    ),
    Mutant(
        guard="order",
        title="a low watermark rises above rows that a batch leaves ready",
        path=SETTLE,
        text="lane: 0 if lane.number in unprocessed else last.get(lane.number, 0) for lane in leased",
        without="lane: last.get(lane.number, 0) for lane in leased",
        noticed_by=f"{DELIVERY}/test_low_watermark.py::test_the_watermark_stays_below_a_row_of_the_last_batch_that_is_still_ready",
    ),
    Mutant(
        guard="order",
        title="rows that become ready below a low watermark stay there",
        path=FETCH,
        text="        low_watermark.reset(session, lane)",
        without="        pass",
        noticed_by=f"{DELIVERY}/test_low_watermark.py::test_rows_that_were_not_delivered_in_an_outage_are_delivered_after_it",
    ),
    Mutant(
        guard="order",
        title="rows that follow a waiting row do not wait",
        path="domain/outbox/delivery/row_updates.py",
        text="waiting[row.aggregate_id] = row_update",
        without="pass",
        noticed_by=f"{DELIVERY}/test_fetch.py::test_a_row_does_not_wait_for_a_later_one",
    ),
    Mutant(
        guard="order",
        title="a run fetches beyond a row that was not sent",
        path=SETTLEMENT,
        text="    if len(processed) + len(row_updates) == len(deliveries):\n        return",
        without="    if deliveries:\n        return",
        noticed_by=f"{DELIVERY}/test_settle.py::test_the_run_reads_on_before_the_first_row_that_is_still_ready[outcomes2-1]",
    ),
    Mutant(
        guard="order",
        title="rows that follow a row that was not delivered are sent",
        path="worker/ordering/batch_of_calls.py",
        text="not allows_next(self._outcome(row))",
        without="self._outcome(row) is None",
        noticed_by="tests/worker/ordering/test_ordered_calls.py::test_a_row_that_was_not_delivered_stops_its_aggregate_and_no_other[outcome0]",
    ),
    Mutant(
        guard="order",
        title="rows that were fetched behind a waiting row are sent",
        path="worker/relay/lane_run.py",
        text="free = [row for row in batch.rows if row.waits_until is None]",
        without="free = batch.rows",
        noticed_by=f"{RELAY}/test_relay.py::test_a_failed_event_is_tried_again_later_and_before_the_next_one_of_its_aggregate",
    ),
    Mutant(
        guard="order",
        title="rows behind a call that nobody waits for any longer are sent",
        path="worker/ordering/batch_of_calls.py",
        text="if self._begin(row) else NOT_SENT",
        without="if self._begin(row) or True else NOT_SENT",
        noticed_by="tests/worker/ordering/test_ordered_calls.py::test_a_call_that_hangs_keeps_no_answer_of_its_neighbours",
    ),
    Mutant(
        guard="order",
        title="a row that was seen behind a call waits for it after its end",
        path=SETTLEMENT,
        text="    if not behind:\n        return {}",
        without="    if True:\n        return {row.aggregate_id: row.waits_until for row, _ in deliveries if behind}",
        noticed_by=f"{DELIVERY}/test_late_calls.py::test_a_row_that_was_seen_behind_the_call_before_it_ended_does_not_wait_for_it_afterwards",
    ),
    Mutant(
        guard="fence",
        title="a late answer is written although its row was sent again",
        path=SETTLE,
        text="outbox.c.available_at == _UNTIL, pending)",
        without="_UNTIL.is_not(None), pending)",
        noticed_by=f"{DELIVERY}/test_late_calls.py::test_an_answer_that_comes_after_the_row_was_sent_again_writes_nothing",
    ),
    Mutant(
        guard="fence",
        title="rows of a lane that was lost are settled with those of the others",
        path=SETTLE,
        text="[lane_of(row.aggregate_id) in numbers for",
        without="[bool(numbers) for",
        noticed_by=f"{RELAY}/test_lanes_together.py::test_a_lane_that_was_lost_is_left_out_and_the_others_are_settled",
    ),
    Mutant(
        guard="fence",
        title="several lanes are released whoever holds them",
        path=LANES,
        text="        .where(lanes.c.epoch == claims.c.epoch, lanes.c.holder == claims.c.holder)\n",
        without="",
        noticed_by=f"{RELAY}/test_lanes_together.py::test_a_lane_that_was_lost_is_left_out_and_the_others_are_settled",
    ),
    Mutant(
        guard="feed",
        title="positions are given without the lock",
        path="domain/feed/append.py",
        text="    session.execute(_LOCK)\n",
        without="",
        noticed_by=f"{FEED}/test_append.py::test_no_event_becomes_visible_before_an_event_with_a_lower_position",
    ),
    Mutant(
        guard="feed",
        title="positions are the ids of the outbox rows",
        path="domain/feed/append.py",
        text="            _last_position + func.row_number().over(order_by=outbox.c.id),\n",
        without="            outbox.c.id,\n",
        noticed_by=f"{FEED}/test_append.py::test_an_event_whose_reservation_committed_late_comes_after_those_that_were_read_before",
    ),
    Mutant(
        guard="feed",
        title="an event is appended again",
        path="domain/feed/append.py",
        text="        .where(_position_of_same.scalar_subquery().is_(None)),\n",
        without="        ,\n",
        noticed_by=f"{FEED}/test_append.py::test_an_event_that_is_in_the_feed_is_not_appended_again_and_leaves_no_gap",
    ),
    Mutant(
        guard="feed",
        title="events that were pruned are skipped silently",
        path="domain/feed/pages.py",
        text="if after is not None and after != last and following != after + 1:",
        without="if after is not None and after > last:",
        noticed_by=f"{FEED}/test_pages.py::test_a_reader_whose_next_event_was_pruned_is_refused_and_sees_the_oldest_position",
    ),
    Mutant(
        guard="feed",
        title="two that prune at the same time share the work",
        path="domain/feed/prune.py",
        text=".with_for_update()",
        without=".with_for_update(skip_locked=True)",
        noticed_by=f"{FEED}/test_prune.py::test_two_transactions_that_prune_at_the_same_time_leave_no_hole",
    ),
    Mutant(
        guard="skip-locked",
        title="a claim waits for another claim",
        path=CLAIM,
        text='with_for_update(of=lanes, skip_locked=True)\n    .cte("free")',
        without='with_for_update(of=lanes)\n    .cte("free")',
        noticed_by=f"{DELIVERY}/test_claim.py::test_two_claims_at_the_same_time_get_two_lanes_and_do_not_wait",
    ),
    Mutant(
        guard="skip-locked",
        title="a claim locks nothing",
        path=CLAIM,
        text='    .with_for_update(of=lanes, skip_locked=True)\n    .cte("free")',
        without='    .cte("free")',
        noticed_by=f"{DELIVERY}/test_claim.py::test_two_claims_at_the_same_time_get_two_lanes_and_do_not_wait",
    ),
    Mutant(
        guard="skip-locked",
        title="a renewal waits for a lane that is being settled",
        path=LANES,
        text='with_for_update(of=lanes, skip_locked=True).cte("mine")',
        without='with_for_update(of=lanes).cte("mine")',
        noticed_by=f"{RELAY}/test_leases.py::test_a_lane_that_is_being_settled_does_not_keep_the_others_from_being_renewed",
    ),
    Mutant(
        guard="event-id",
        title="each destination gets an id of its own",
        path="domain/outbox/record.py",
        text="{encode(name)},{same}",
        without='{encode(name)},"event_id":"{new_id()}",{same.partition(",")[2]}',
        noticed_by="tests/domain/outbox/test_record.py::test_each_destination_that_wants_an_event_gets_a_row_of_its_own_with_the_same_event_id",
    ),
    Mutant(
        guard="event-id",
        title="webhook-id is new at each delivery",
        path="worker/sinks/webhook.py",
        text="row.fetched_at, str(row.event_id)",
        without=f"row.fetched_at, str({ANOTHER_ID})",
        noticed_by="tests/worker/sinks/test_webhook.py::test_the_library_of_the_standard_verifies_the_signature_of_a_webhook",
    ),
    Mutant(
        guard="event-id",
        title="the Idempotency-Key is new at each call",
        path="worker/steps/confirmation.py",
        text='"Idempotency-Key": str(row.event_id)',
        without=f'"Idempotency-Key": str({ANOTHER_ID})',
        noticed_by="tests/worker/steps/test_confirmation.py::test_every_attempt_has_the_same_idempotency_key",
    ),
    Mutant(
        guard="event-id",
        title="the envelope's event_id is new at each delivery",
        path="worker/formats/envelope.py",
        text='"event_id":"{row.event_id}"',
        without=f'"event_id":"{{{ANOTHER_ID}}}"',
        noticed_by="tests/worker/sinks/test_log.py::test_an_event_is_a_line_of_json",
    ),
    *booking_guards.MUTANTS,
    *calendar_guards.MUTANTS,
    *weather_guards.MUTANTS,
)
