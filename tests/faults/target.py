"""The process that is struck: it works as a worker does, and stops once at the gate of its point.

`bin/python -m tests.faults.target POINT DESTINATION GO`: it goes on as soon as the file GO exists.
"""

import signal
import sys
import threading
from pathlib import Path

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from domain.runtime.settings import Settings
from tests.faults.checkpoints import POINTS, Gate
from worker.app import open_app

#: Between two runs: it competes with the other worker for each lane.
REST_SECONDS = 0.01

log = structlog.get_logger()


def main() -> None:
    """Work until SIGTERM."""
    point, destination, go = sys.argv[1:]
    gate = Gate(Path(go))
    event.listen(Engine, "connect", lambda connection, _: gate.backends.add(connection.info.backend_pid))
    POINTS[point].put(gate)
    app = open_app(Settings.load(), threads=1, only=destination)
    stopping = app.drain.stopping
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    log.info("victim.ready")
    while not stopping.is_set():
        try:
            POINTS[point].work(app)
        except SQLAlchemyError as error:
            # As a worker's next ring would, the next run tries again.
            log.warning("victim.broke", error=type(error).__name__)
        threading.Event().wait(REST_SECONDS)
    app.close()


if __name__ == "__main__":
    main()
