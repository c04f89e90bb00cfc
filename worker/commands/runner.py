"""What every command does alike: it opens the database, reports an error in one line, and stops after its batch."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import rich_click as click
from click.exceptions import Exit
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain.fulfilment import load_routes
from domain.outbox import Routes
from domain.outbox.operations.routes_check import require
from domain.privacy import KeyService, key_service_of
from domain.runtime import database, database_errors, logs
from domain.runtime.errors import (
    Busy,
    ConfigurationError,
    HoldfastError,
    Invalid,
    NotInOutbox,
    PersonalDataUnavailable,
    UnknownDestination,
    UnknownItem,
    UnknownReservation,
)
from domain.runtime.settings import Settings
from worker.commands.command_line import TROUBLE, WRONG_USAGE

#: Every process ends within 10 s of SIGTERM.
STOP_SECONDS = 8.0


@contextmanager
def opened(consequence: str, *, records: bool = False) -> Iterator[tuple[sessionmaker[Session], Routes]]:
    """Open the database and the routes of the settings, with errors reported as `reporting` does.

    A command that `records` events does not run if other routes are in force.
    """
    with reporting(consequence):
        settings = Settings.load()
        logs.configure(settings.log_level)
        routes = load_routes(settings)
        if records:
            require(settings, routes)
        engine = database.connect(settings, connections=1)
        try:
            yield database.sessions(engine), routes
        finally:
            engine.dispose()


def personal_data_keys() -> KeyService:
    """Return the keys of personal data. Raises ConfigurationError if there are none."""
    keys = key_service_of(Settings.load())
    if keys is None:
        raise ConfigurationError("PII_KEYS: it is not set, and personal data needs keys")
    return keys


@contextmanager
def reporting(consequence: str) -> Iterator[None]:
    """Report every expected error in one line on standard error, and end the command with the exit code for it.

    `consequence` says what an error of the database means for the work of this command.
    """
    try:
        yield
    except ConfigurationError as error:
        fail(f"{error}\nNothing was done. docs/configuration.md describes each setting.", WRONG_USAGE)
    except SQLAlchemyError as error:
        fail(describe(error, consequence))
    except Busy:
        fail(f"Somebody else is changing the same rows just now. {consequence} Wait a little and run it again.")
    except PersonalDataUnavailable:
        fail(f"The service of PII_KEY_SERVICE can't be reached. {consequence} See to the service, and run it again.")
    except (NotInOutbox, UnknownItem, UnknownReservation) as error:
        fail(_describe_refusal(error))
    except HoldfastError as error:
        fail(_describe_refusal(error), WRONG_USAGE)


def fail(message: str, code: int = TROUBLE) -> NoReturn:
    """Print a message on standard error, and end the command with an exit code."""
    click.echo(message, err=True)
    raise Exit(code)


def describe(error: SQLAlchemyError, consequence: str, url: str = "DATABASE_URL") -> str:
    """Return what happened in the database, what it means for the command, and what to do.

    `url` is the setting that leads to the database.
    """
    match database_errors.trouble(error):
        case _ if isinstance(error, DBAPIError) and database_errors.is_standby(error):
            what, advice = "is a standby, which takes no changes", f"Set {url} to the primary, and run it again."
        case Busy():
            what, advice = "is too busy", "Wait a little and run it again."
        case None:
            what = "refused a statement"
            advice = "Repeating does not help: see PostgreSQL's log, and run bin/migrate if the schema is out of date."
        case _:
            what, advice = "can't be reached", f"Check {url} and that PostgreSQL runs, and run it again."
    return f"The database {what} ({str(error).splitlines()[0]}). {consequence} {advice}"


def _describe_refusal(error: HoldfastError) -> str:
    match error:
        case Invalid(field=field, reason=reason):
            return f"{field}: {reason}. Nothing was changed."
        case UnknownDestination(destination=name, known=names):
            return f"There is no destination {name!r}. The destinations are: {names}. Nothing was changed."
        case NotInOutbox(subject_id=subject_id):
            return (
                f"The outbox has no event and no reservation with the id {subject_id}. Delivered events are kept for"
                " OUTBOX_RETENTION_DAYS, and an event that no destination wants is not recorded."
            )
        case UnknownItem(item=item):
            return f"There is no item with the sku {item!r}. GET /items lists all items."
        case UnknownReservation(reservation_id=reservation_id):
            return f"There is no reservation with the id {reservation_id}. GET /reservations lists all reservations."
    return str(error)


@contextmanager
def stoppable(stopping: threading.Event) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the work after the present batch."""
    # A call that takes longer than this is broken off. Its event is sent again, under the next lease.
    last_resort = threading.Timer(STOP_SECONDS, _break_off)
    last_resort.daemon = True

    def stop(*_: object) -> None:
        if not stopping.is_set():
            stopping.set()
            last_resort.start()

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        last_resort.cancel()
        for number, handler in former.items():
            signal.signal(number, handler)


def _break_off() -> None:
    click.echo(
        f"Stopped in a batch that did not end within {STOP_SECONDS:g} s. It was not committed: its rows are as they"
        " were, and an event that was sent already is sent again. Earlier batches were committed.",
        err=True,
    )
    os._exit(TROUBLE)
