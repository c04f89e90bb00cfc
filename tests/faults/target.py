"""The process that a fault hits: it works as a worker does, and pauses at its checkpoint, once a hit.

`bin/python -m tests.faults.target CHECKPOINT DESTINATION FOLDER`: files in FOLDER say when it pauses and continues.
"""

import signal
import sys
import threading
from pathlib import Path

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from domain.runtime.settings import Settings
from tests.faults.checkpoints import CHECKPOINTS, Pause
from worker.app import open_app

#: The pause between two runs. It is short because the target competes with another worker for each lane.
REST_SECONDS = 0.01

log = structlog.get_logger()


def main() -> None:
    """Work until SIGTERM."""
    name, destination, folder = sys.argv[1:]
    checkpoint, pause = CHECKPOINTS[name], Pause(Path(folder))
    event.listen(Engine, "connect", lambda connection, _: pause.backends.add(connection.info.backend_pid))
    checkpoint.install(pause)
    app = open_app(Settings.load(), threads=1, only=destination)
    stopping = app.relay.stopping
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    log.info("target.ready")
    while not stopping.is_set():
        try:
            checkpoint.work(app)
        except SQLAlchemyError as error:
            # The next run tries again, as the next wake-up of a worker does.
            log.warning("target.broke", error=type(error).__name__)
        threading.Event().wait(REST_SECONDS)
    app.close()


if __name__ == "__main__":
    main()
