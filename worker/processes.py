"""The processes of a worker: those that work, and one that serves what they count."""

from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

from domain.runtime.processes.place import Place
from domain.runtime.processes.supervisor import TROUBLE, Supervisor
from worker import process

#: A process that has not ended by then is killed: a worker ends within 10 s of SIGTERM, whatever hangs.
KILL_SECONDS = 9.0

#: What the death of a process means, by its kind.
WORK_LOST = (
    "Other processes continue with what it had leased: at once, or within 4 s if they can't see that it has died. Some"
    " events may be sent twice."
)
METRICS_LOST = "The metrics of this worker are not served meanwhile. Everything else works."

#: What it means that a process has not finished what it had begun when the worker ended.
UNFINISHED = (
    "What it had sent and not settled is sent again. Look whether PostgreSQL or a destination hangs, and at the lines"
    " above."
)

#: A process shares the memory of what its parent has imported.
_forks = get_context("fork")


def run(count: int, threads: int, *, serve_metrics: bool) -> int:
    """Run so many processes with so many threads each, until a signal comes. Return the exit code of the worker."""
    places = [Place(partial(_made, partial(process.work, threads)), lost=WORK_LOST) for _ in range(count)]
    if serve_metrics:
        places.append(Place(partial(_made, process.serve_metrics), lost=METRICS_LOST, is_vital=False))
    supervisor = Supervisor("worker", places, end_seconds=KILL_SECONDS, advice=UNFINISHED)
    return supervisor.run() or (0 if supervisor.is_well_ended else TROUBLE)


def _made(act: Callable[[], None]) -> BaseProcess:
    return _forks.Process(target=process.run, args=[act])
