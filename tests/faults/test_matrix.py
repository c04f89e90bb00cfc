"""Whatever strikes, wherever: nothing lost, nothing invented, in order, and nothing repeated but what was in hand."""

import threading
import time
from collections import Counter
from random import Random

import pytest

from tests.faults.checkpoints import POINTS, RETENTION, Point, prunes, replays
from tests.faults.environment import Stage, Stages, Victim
from tests.faults.fault_injections import FAULTS, Fault, Scene, check_its_clock, take_down
from tests.proofs.checker import SINKS
from tests.proofs.waiting import wait_until
from worker import maintenance

#: What customers are answered before a fault strikes and after it, at least.
ANSWERS = 4

#: Rows of the history that pruning must leave.
KEPT = 2

#: The promise, for any process that has work in hand.
GONE_WITHIN_SECONDS = 10.0


@pytest.mark.parametrize("fault_name", FAULTS)
@pytest.mark.parametrize("point_name", POINTS)
def test_promises_outlive(stages: Stages, point_name: str, fault_name: str, seed: int) -> None:
    point, fault = POINTS[point_name], FAULTS[fault_name]
    dice = Random(f"{seed} {point_name} {fault_name}")
    destination = dice.choice(_destinations(point, fault))
    environment = fault.environment()
    began = time.monotonic()

    with stages.cell() as stage:
        if point.work is prunes:
            stage.grow_old()
        with stage.load(dice.getrandbits(32)) as load:
            victim = stage.start_victim(point_name, destination, **environment)
            load.go_on(answers=ANSWERS)
            in_hand = stage.caught(victim)
            check_its_clock(fault, in_hand)
            scene = Scene(stage, victim, point, in_hand)
            with fault.strike(scene):
                victim.go_on()
            load.go_on(answers=ANSWERS)
        if point.work is prunes:
            _check_that_pruning_ends(stage, victim)
        _end(victim, was_killed=fault.kills)
        counted, repeats = stage.check(scene.also + Counter({destination: len(in_hand.rows)}))

    took = time.monotonic() - began
    print(f"{len(in_hand.rows)} rows to {destination} in hand, repeated: {dict(repeats)}; {counted}; {took:.1f} s")
    assert counted.attempts == 0
    if fault.kills and point.has_sent and destination in SINKS:
        assert repeats == {destination: len(in_hand.rows)}, "It was not struck where it was meant to be."


def _destinations(point: Point, fault: Fault) -> list[str]:
    """Return where it may strike: a log does not go down as a partner does, and a step is not replayed."""
    can_go_down = {"partner", "confirmation"} if fault.strike is take_down else {*SINKS, "confirmation"}
    return sorted(can_go_down - {"confirmation"} if point.work is replays else can_go_down)


def _check_that_pruning_ends(stage: Stage, victim: Victim) -> None:
    """Who is left prunes what is left: all that is old, but for what is dead or left lately."""
    survives = victim.process.is_running()
    assert survives or stage.old_rows() > KEPT, "The victim had nothing left to do: the cell has shown nothing."

    def are_gone() -> bool:
        if not survives:
            maintenance.prune(stage.house.db, threading.Event(), outbox_retention=RETENTION)
        return stage.old_rows() <= KEPT

    wait_until("all that is old is gone", are_gone)
    assert stage.old_rows() == KEPT


def _end(victim: Victim, *, was_killed: bool) -> None:
    assert victim.process.is_running() is not was_killed, victim.process.log.read_text()
    if not was_killed:
        victim.process.stop(within=GONE_WITHIN_SECONDS, whole_group=True)
        assert victim.process.popen.returncode == 0, victim.process.log.read_text()
