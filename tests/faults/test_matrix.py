"""Whatever fault hits, wherever: nothing is lost, invented or out of order, and only what was in flight is repeated."""

import threading
import time
from collections import Counter
from random import Random

import pytest

from tests.faults.brokers import QUEUE
from tests.faults.cells import marked
from tests.faults.checkpoints import CHECKPOINTS, RETENTION, Checkpoint, prune
from tests.faults.environment import Environment, Environments, Target
from tests.faults.fault_injections import FAULTS, Fault, Hit, check_clock
from tests.proofs.checker import CONFIRMATION
from tests.proofs.load import Load
from tests.support.rabbitmq import is_installed
from tests.support.requirements import required
from tests.support.waiting import wait_until
from worker import maintenance

#: How many requests of clients are answered before the first hit, and after each one, at least.
ANSWERS = 4

#: How many old rows pruning must leave.
KEPT = 2

#: Any process ends within this time, as the documentation says.
GONE_WITHIN_SECONDS = 10.0


@pytest.mark.parametrize(("checkpoint_name", "fault_name", "destination"), marked())
def test_no_fault_loses_or_reorders_an_event(
    environments: Environments, checkpoint_name: str, fault_name: str, destination: str, seed: int
) -> None:
    checkpoint, fault = CHECKPOINTS[checkpoint_name], FAULTS[fault_name]
    variables = fault.environment()
    required("RabbitMQ", destination != QUEUE or is_installed(), "rabbitmq-server")
    dice = Random(f"{seed} {checkpoint_name} {fault_name} {destination}")
    began = time.monotonic()

    with environments.cell() as environment:
        hits: list[Hit] = []
        with environment.load(dice.getrandbits(32)) as load:
            load.wait(answers=ANSWERS)
            for _ in range(fault.times):
                if not hits or fault.kills:
                    target = environment.start_target(checkpoint_name, destination, **variables)
                hits.append(_hit(environment, load, target, checkpoint, fault))
        _end(target, was_killed=fault.kills)
        counted, repeats = environment.check(sum((_repeatable(hit) for hit in hits), Counter()))
        charged = environment.charged()
        assert not charged, "An outage spends no attempt, however soon the next one comes."

    rows, took = [len(hit.in_flight.rows) for hit in hits], time.monotonic() - began
    print(f"{rows} rows to {destination} in flight, repeated: {dict(repeats)}; {counted}; {took:.1f} s", charged)
    if fault.kills and checkpoint.has_sent and destination != CONFIRMATION:
        assert repeats == {destination: sum(rows)}, "The fault did not hit where it should have."


def _hit(environment: Environment, load: Load, target: Target, checkpoint: Checkpoint, fault: Fault) -> Hit:
    """Let the fault hit the target at its checkpoint, once."""
    prepare = environment.add_history if checkpoint.work is prune else lambda: None
    hit = Hit(environment, target, checkpoint, environment.wait_for_checkpoint(target, prepare))
    check_clock(fault, hit.in_flight)
    with fault.inject(hit):
        target.resume()
    load.wait(answers=ANSWERS)
    if checkpoint.work is prune:
        _check_that_pruning_ends(environment, target)
    return hit


def _repeatable(hit: Hit) -> Counter[str]:
    """Return how many rows may have been sent again because of a hit, by destination."""
    return hit.also + Counter({hit.target.destination: len(hit.in_flight.rows)})


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
