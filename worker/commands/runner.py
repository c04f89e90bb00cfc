"""What every key does alike: opens the database, says in a line what went wrong, and stops when it is told to."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain.outbox import routes_file
from domain.outbox.routes import Routes
from domain.runtime import database, telemetry
from domain.runtime.errors import Busy, HoldfastError, Invalid, NotInOutbox, UnknownDestination
from domain.runtime.settings import Settings

#: How a key ends: what was asked is done; it is not; it can't be.
DONE, TROUBLE, WRONG_USAGE = 0, 1, 2

#: Every process ends within 10 s of SIGTERM.
STOP_SECONDS = 8.0


def turned(work: Callable[[sessionmaker[Session], Routes], int]) -> int:
    """Do the work of a key on the database and the routes of the settings. Return how it ends."""
    settings = Settings.load()
    telemetry.configure(settings.log_level)
    routes = routes_file.load(settings)
    engine = database.connect(settings, connections=1)
    try:
        return work(database.sessions(engine, routes=routes), routes)
    except SQLAlchemyError as error:
        return failed(error, "What was changed is written down.")
    except HoldfastError as error:
        print(_refused(error), file=sys.stderr)
        return TROUBLE if isinstance(error, NotInOutbox) else WRONG_USAGE
    finally:
        engine.dispose()


def failed(error: SQLAlchemyError, comfort: str) -> int:
    """Say what the database said, what it means, and what to do."""
    match database.trouble(error):
        case Busy():
            known, advice = "is too busy", "Run it again in a while."
        case None:
            known, advice = "refused", "This does not pass by itself: run bin/migrate, and look into PostgreSQL's log."
        case _:
            known, advice = "can't be reached", "Check DATABASE_URL and that PostgreSQL runs, and run it again."
    print(f"The database {known} ({str(error).splitlines()[0]}). {comfort} {advice}", file=sys.stderr)
    return TROUBLE


def _refused(error: HoldfastError) -> str:
    match error:
        case Invalid(field=field, reason=reason):
            return f"{field}: {reason}. Nothing was changed."
        case UnknownDestination(destination=name, known=names):
            return f"There is no destination {name!r}; those that there are: {names}. Nothing was changed."
        case NotInOutbox(subject_id=which):
            return (
                f"Nothing is promised under {which}: no event and no reservation of that id is in the outbox."
                " Delivered rows are kept for OUTBOX_RETENTION_DAYS; what no destination wants is never recorded."
            )
    return str(error)


def _break_off() -> None:
    print(
        f"Stopped in the midst of a batch that did not end within {STOP_SECONDS:g} s. It is not written down, and goes"
        " out again; all before it is.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(TROUBLE)


@contextmanager
def stoppable(stopping: threading.Event) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the work after the batch in hand."""
    # A call that outlasts this goes out again, under the next lease.
    last_call = threading.Timer(STOP_SECONDS, _break_off)
    last_call.daemon = True

    def stop(*_: object) -> None:
        if not stopping.is_set():
            stopping.set()
            last_call.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    yield
