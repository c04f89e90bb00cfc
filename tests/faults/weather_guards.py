"""The guards for bad weather: what keeps the trouble of a destination from its events and from its neighbours."""

from tests.faults.mutant import Mutant

GUARD = "weather"

DELIVERY, OPERATIONS = "tests/domain/outbox/delivery", "tests/domain/outbox/operations"
BLAME, HISTORY, OUTAGE = (f"{DELIVERY}/test_{name}.py" for name in ("blame", "history", "outage"))
BREAKER, CLAIM, LATE = (f"{DELIVERY}/test_{name}.py" for name in ("breaker", "claim", "late_calls"))
PACE, LEASES = "tests/worker/ordering/test_pace.py", "tests/worker/relay/test_leases.py"
DISPATCHER, RELAY = "tests/worker/relay/test_dispatcher.py", "tests/worker/relay/test_relay.py"
THREADS, LOG = "tests/worker/ordering/test_calling_threads.py", "tests/worker/sinks/test_log.py"
BURIAL = "tests/domain/fulfilment/test_burial.py"
REPLAY, PRUNE = f"{OPERATIONS}/test_replay.py", "tests/domain/outbox/test_prune.py"

#: The tests that must notice when a guard is missing.
SUITE = (
    BLAME,
    HISTORY,
    OUTAGE,
    BREAKER,
    CLAIM,
    LATE,
    PACE,
    LEASES,
    DISPATCHER,
    RELAY,
    THREADS,
    LOG,
    BURIAL,
    REPLAY,
    PRUNE,
)

#: The test of the whole table of blame, by the answer.
TABLE = f"{BLAME}::test_what_happens_to_a_row_depends_on_its_answer_and_on_those_of_its_neighbours"


def _mutant(title: str, path: str, text: str, without: str, noticed_by: str) -> Mutant:
    return Mutant(guard=GUARD, title=title, path=path, text=text, without=without, noticed_by=noticed_by)


BLAMES = tuple(
    _mutant(title, "domain/outbox/delivery/blame.py", text, without, noticed_by)
    for title, text, without, noticed_by in (
        (
            "an event that alone is refused among successes is never charged",
            "Neighbours.TAKEN: Verdict.AT_FAULT",
            "Neighbours.TAKEN: Verdict.IN_DOUBT",
            f"{BLAME}::test_what_happens_to_a_row_depends_on_its_answer_and_on_those_of_its_neighbours[refused]",
        ),
        (
            "an event is charged for what everybody is answered",
            "Neighbours.ALL_REFUSED: Verdict.DOWN",
            "Neighbours.ALL_REFUSED: Verdict.AT_FAULT",
            f"{OUTAGE}::test_outages_that_come_again_and_again_kill_no_event",
        ),
        (
            "a wrong password is the fault of each event",
            "Cause.DENIED: _OF_THE_REQUEST",
            "Cause.DENIED: dict.fromkeys(Neighbours, Verdict.AT_FAULT)",
            f"{TABLE}[401]",
        ),
        (
            "an event dies although all others are rejected as well",
            "return Verdict.DOWN if neighbours is Neighbours.ALL_REFUSED else Verdict.DEAD",
            "return Verdict.DEAD",
            f"{TABLE}[400]",
        ),
        (
            "an event is charged before anybody knows whose fault it is",
            "Neighbours.UNKNOWN: Verdict.IN_DOUBT",
            "Neighbours.UNKNOWN: Verdict.AT_FAULT",
            f"{TABLE}[500]",
        ),
        (
            "an event is charged while its destination recovers",
            "Neighbours.RECOVERING: Verdict.IN_DOUBT",
            "Neighbours.RECOVERING: Verdict.AT_FAULT",
            f"{OUTAGE}::test_after_an_outage_no_row_is_at_fault_before_the_destination_has_recovered",
        ),
    )
)

HISTORIES = tuple(
    _mutant(title, "domain/outbox/delivery/history.py", text, without, noticed_by)
    for title, text, without, noticed_by in (
        (
            "one event that is refused again and again looks like an outage",
            "self._refused >= REFUSED_IN_A_ROW and len(self._refused_to) > 1",
            "self._refused >= REFUSED_IN_A_ROW",
            f"{HISTORY}::test_one_aggregate_that_is_refused_again_and_again_is_not_all",
        ),
        (
            "a destination has recovered as soon as its breaker is closed",
            "self._to_take = RECOVERED_AFTER",
            "self._to_take = 0",
            f"{HISTORY}::test_a_destination_that_was_down_recovers_before_anybody_is_at_fault",
        ),
        (
            "a refusal in an outage that is over counts against its event",
            "if refused_at and self._up_since and refused_at <= self._up_since:",
            "if False:",
            f"{HISTORY}::test_a_refusal_in_an_outage_that_is_over_is_no_sign_of_a_fault_when_the_next_outage_begins",
        ),
        (
            "half of all are refused, and each event is at fault",
            "taken < refused * TAKEN_FOR_EACH_REFUSED",
            "taken < refused",
            f"{HISTORY}::test_many_were_refused_if_they_and_the_row_are_more_than_a_tenth[0]",
        ),
        (
            "what was taken in the batch of a refused event counts against it",
            "batch.at > refused_at",
            "batch.at >= refused_at",
            f"{HISTORY}::test_what_was_taken_in_the_batch_in_which_a_row_was_refused_shows_nothing",
        ),
    )
)

PACES = tuple(
    _mutant(title, "worker/ordering/pace.py", text, without, noticed_by)
    for title, text, without, noticed_by in (
        (
            "a destination that is back is stormed",
            "            self._window = 1\n",
            "            self._window = UNLIMITED\n",
            f"{PACE}::test_after_an_outage_more_and_more_calls_may_begin",
        ),
        (
            "a destination that refuses while it recovers gets as many calls as before",
            "window = 1 if has_refused else self._window + taken",
            "window = self._window + taken",
            f"{PACE}::test_a_refusal_while_it_recovers_begins_with_one_call_again",
        ),
        (
            "a destination that sheds load is called as often as before",
            "self._slow_down(aggregate, now)",
            "pass",
            f"{PACE}::test_a_receiver_that_sheds_load_gets_what_it_can_take_and_not_much_more[1]",
        ),
        (
            "calls begin in a process that stops",
            "while not self.stopping.is_set() and (now",
            "while (now",
            f"{PACE}::test_no_call_begins_in_a_process_that_stops",
        ),
    )
)

LEASE_MUTANTS = (
    _mutant(
        "calls begin after the lease",
        "worker/relay/leases.py",
        "return lease is not None and clock() < lease.renewed_at + LEASE.total_seconds()",
        "return lease is not None",
        f"{RELAY}::test_a_worker_that_was_frozen_since_its_claim_begins_no_call",
    ),
    _mutant(
        "a lane that was lost counts as renewed",
        "worker/relay/leases.py",
        "for lane in renewed & self._leased.keys():",
        "for lane in self._leased.keys():",
        f"{LEASES}::test_a_lane_that_another_worker_has_claimed_is_never_held_again",
    ),
)

BULKHEADS = tuple(
    _mutant(title, "worker/relay/dispatcher.py", text, without, noticed_by)
    for title, text, without, noticed_by in (
        (
            "all destinations share their threads",
            "self._pools = {name: calling_threads.pool(threads) for name in relay.destinations}",
            "self._pools = dict.fromkeys(relay.destinations, calling_threads.pool(threads))",
            f"{DISPATCHER}::test_however_many_destinations_hang_another_one_is_served",
        ),
        (
            "a lane that becomes due just before the last thread ends waits for the next wake-up",
            "if name in self._missed:",
            "if False:",
            f"{DISPATCHER}::test_a_lane_that_becomes_due_just_before_the_last_thread_ends_is_drained_without_another_wake_up",
        ),
        (
            "lanes are claimed for a destination that has no free thread",
            "return [name for name in self._free if name not in busy]",
            "return list(self._free)",
            f"{DISPATCHER}::test_no_lane_is_claimed_for_a_destination_whose_threads_are_all_busy",
        ),
    )
)

HANGS = tuple(
    _mutant(title, "worker/ordering/calling_threads.py", text, without, f"{THREADS}::{test}")
    for title, text, without, test in (
        (
            "calls that hang keep the threads of their destination",
            "                self._replace_pool()\n",
            "                pass\n",
            "test_rows_are_delivered_beside_more_calls_that_hang_than_there_are_threads",
        ),
        (
            "a destination that answers nothing gets more and more calls",
            "if self._has_taken and self._is_half_held()",
            "if self._is_half_held()",
            "test_a_destination_of_which_nothing_is_answered_gets_no_further_threads",
        ),
        (
            "any number of calls may hang",
            " and self._hanging <= HANGING_FOR_EACH * self._concurrency",
            "",
            "test_the_calls_that_hang_are_limited",
        ),
    )
)

LINES = (
    _mutant(
        "half a line of another process swallows an event",
        "worker/sinks/log.py",
        'return start == 0 or os.pread(file, 1, start - 1) == b"\\n"',
        "return True",
        f"{LOG}::test_half_a_line_that_another_process_has_left_swallows_no_event[meanwhile]",
    ),
)

RELEASES = (
    _mutant(
        "the release of a buried confirmation overtakes its call",
        "domain/fulfilment/burial.py",
        "    burial.let_calls_end(session, [*asked, *steps])\n",
        "",
        f"{BURIAL}::test_the_release_waits_for_a_call_that_outlasts_its_batch",
    ),
)

PROBES = (
    _mutant(
        "a probe that hangs is waited for",
        "domain/outbox/delivery/settlement.py",
        "if probing and in_flight and not is_up:",
        "if probing and in_flight and is_up:",
        f"{LATE}::test_a_probe_that_is_not_answered_is_not_waited_for_and_the_next_one_is_due_later",
    ),
    _mutant(
        "a probe that is answered late shows nothing",
        "domain/outbox/delivery/settlement.py",
        "if is_up and (probing or since is not None):",
        "if is_up and probing:",
        f"{LATE}::test_a_probe_that_is_answered_late_closes_the_breaker",
    ),
    _mutant(
        "calls that hung keep an open breaker open",
        "domain/outbox/delivery/settlement.py",
        "if found is Verdict.DOWN and is_open and is_late else found",
        "if found is Verdict.DOWN and is_open and not is_late else found",
        f"{LATE}::test_a_call_that_hung_leaves_an_open_breaker_as_it_is_and_its_row_in_doubt",
    ),
    _mutant(
        "calls that hang and end together shut a destination that takes others",
        "domain/outbox/delivery/history.py",
        "if refused and not is_old:",
        "if refused:",
        f"{HISTORY}::test_calls_that_hung_say_nothing_of_a_destination_that_has_taken_others_since",
    ),
    _mutant(
        "two workers probe at the same time",
        "domain/outbox/delivery/claim.py",
        ".where(destinations.c.name == destination, _may_be_called)",
        ".where(destinations.c.name == destination)",
        f"{CLAIM}::test_of_two_claims_at_the_same_time_one_may_probe_and_the_other_finds_the_probe_taken",
    ),
    _mutant(
        "a worker that dies while it probes keeps the probe",
        "domain/outbox/delivery/claim.py",
        "open_until=_clock + PROBE_LEASE",
        "open_until=_clock + 100 * PROBE_LEASE",
        f"{BREAKER}::test_when_a_worker_dies_while_it_probes_another_one_probes",
    ),
    _mutant(
        "a breaker stays open for as long as a destination asks",
        "domain/outbox/delivery/breaker.py",
        "min(max(map(retry_after_of, seen)), LONGEST_RETRY_AFTER)",
        "max(map(retry_after_of, seen))",
        f"{BREAKER}::test_a_destination_gets_the_time_that_it_asks_for_within_reason[asked2-granted2]",
    ),
)

REPLAYS = tuple(
    _mutant(title, "domain/outbox/operations/replay.py", text, without, noticed_by)
    for title, text, without, noticed_by in (
        (
            "two replays take rows of the same reservation",
            "    session.execute(select(func.pg_advisory_xact_lock(REPLAY_LOCK)))\n",
            "",
            f"{REPLAY}::test_a_replay_waits_for_another_one_so_that_neither_overtakes_within_a_reservation",
        ),
        (
            "a run over the lane meets some of the replayed rows",
            "outbox.c.available_at: func.now(),",
            "outbox.c.available_at: None,",
            f"{REPLAY}::test_rows_that_are_replayed_during_a_run_over_their_lane_keep_their_order",
        ),
    )
)

PRUNES = tuple(
    _mutant(title, "domain/outbox/prune.py", text, without, noticed_by)
    for title, text, without, noticed_by in (
        (
            "rows that were not delivered are pruned",
            "_pruning(outbox.c.processed_at)",
            "_pruning(outbox.c.created_at)",
            f"{PRUNE}::test_a_row_that_was_not_delivered_stays_for_ever[ready]",
        ),
        (
            "dead letters that nobody has discarded are pruned",
            "_pruning(outbox.c.discarded_at)",
            "_pruning(outbox.c.dead_at)",
            f"{PRUNE}::test_dead_letters_that_were_discarded_long_ago_are_deleted_and_others_stay",
        ),
        (
            "pruning waits for rows that are being replayed",
            ".with_for_update(skip_locked=True)",
            ".with_for_update()",
            f"{PRUNE}::test_a_row_that_is_being_replayed_stays_and_is_not_waited_for",
        ),
    )
)

MUTANTS = (
    *BLAMES,
    *HISTORIES,
    *PACES,
    *LEASE_MUTANTS,
    *BULKHEADS,
    *HANGS,
    *LINES,
    *RELEASES,
    *PROBES,
    *REPLAYS,
    *PRUNES,
)
