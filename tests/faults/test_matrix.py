"""Whatever fault hits, wherever: nothing is lost, invented or out of order, and only what was in flight is repeated."""

import threading
import time
from collections import Counter
from random import Random

import pytest

from tests.faults.cells import marked
from tests.faults.checkpoints import CHECKPOINTS, RETENTION, Checkpoint, prune, replay_some
from tests.faults.environment import Environment, Environments, Target
from tests.faults.fault_injections import FAULTS, Cell, Fault, check_clock, take_destination_down
from tests.proofs.checker import SINKS
from tests.support.waiting import wait_until
from worker import maintenance

#: How many requests of clients are answered before the fault and after it, at least.
ANSWERS = 4

#: How many old rows pruning must leave.
KEPT = 2

#: Any process ends within this time, as the documentation says.
GONE_WITHIN_SECONDS = 10.0


@pytest.mark.parametrize(("checkpoint_name", "fault_name"), marked())
def test_no_fault_loses_or_reorders_an_event(
    environments: Environments, checkpoint_name: str, fault_name: str, seed: int
) -> None:
    checkpoint, fault = CHECKPOINTS[checkpoint_name], FAULTS[fault_name]
    dice = Random(f"{seed} {checkpoint_name} {fault_name}")
    destination = dice.choice(_destinations(checkpoint, fault))
    variables = fault.environment()
    began = time.monotonic()

    with environments.cell() as environment:
        if checkpoint.work is prune:
            environment.add_history()
        with environment.load(dice.getrandbits(32)) as load:
            target = environment.start_target(checkpoint_name, destination, **variables)
            load.wait(answers=ANSWERS)
            in_flight = environment.wait_for_checkpoint(target)
            check_clock(fault, in_flight)
            cell = Cell(environment, target, checkpoint, in_flight)
            with fault.inject(cell):
                target.resume()
            load.wait(answers=ANSWERS)
        if checkpoint.work is prune:
            _check_that_pruning_ends(environment, target)
        _end(target, was_killed=fault.kills)
        counted, repeats = environment.check(cell.also + Counter({destination: len(in_flight.rows)}))

    took = time.monotonic() - began
    print(f"{len(in_flight.rows)} rows to {destination} in flight, repeated: {dict(repeats)}; {counted}; {took:.1f} s")
    assert counted.attempts == 0
    if fault.kills and checkpoint.has_sent and destination in SINKS:
        assert repeats == {destination: len(in_flight.rows)}, "The fault did not hit where it should have."


def _destinations(checkpoint: Checkpoint, fault: Fault) -> list[str]:
    """Return the destinations that a cell may choose from: a log does not go down, and a step is not replayed."""
    can_go_down = {"partner", "confirmation"} if fault.inject is take_destination_down else {*SINKS, "confirmation"}
    return sorted(can_go_down - {"confirmation"} if checkpoint.work is replay_some else can_go_down)


def _check_that_pruning_ends(environment: Environment, target: Target) -> None:
    """The target, or another process if it was killed, prunes everything but what is dead or recent."""
    survives = target.process.is_running()
    assert survives or environment.history() > KEPT, "Nothing was left to prune: the cell has shown nothing."

    def is_gone() -> bool:
        if not survives:
            maintenance.prune(environment.cluster.db, threading.Event(), RETENTION)
        return environment.history() <= KEPT

    wait_until("all that is old is pruned", is_gone)
    assert environment.history() == KEPT


def _end(target: Target, *, was_killed: bool) -> None:
    assert target.process.is_running() is not was_killed, target.process.log.read_text()
    if not was_killed:
        target.process.stop(within=GONE_WITHIN_SECONDS, whole_group=True)
        assert target.process.popen.returncode == 0, target.process.log.read_text()
