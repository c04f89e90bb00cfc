"""One process of the API: Granian serves in it, until it is stopped or its main process is gone."""

import os
import signal
import sys
import time
from collections.abc import Callable
from threading import Thread

from domain.runtime import startup
from domain.runtime.errors import ConfigurationError
from domain.runtime.processes import parent

#: A process of the server that has not stopped within this time is killed. Requests in flight are answered by then;
#: only clients that go on sending are cut off.
STOP_SECONDS = 8


def run(serve: Callable[..., None], *arguments: object) -> None:
    """Serve in a process that was started for it. Exits with 2 if the configuration can't be used."""
    _take_signals()
    Thread(target=_watch_parent, daemon=True).start()
    serve(*arguments)
    sys.exit(_exit_code)


def stop(error: ConfigurationError) -> None:
    """Stop this process as SIGTERM does, and have it exit with 2, as the configuration can't be used any more."""
    global _exit_code  # noqa: PLW0603 - a process has one exit code
    startup.report(error)
    _exit_code = startup.WRONG_CONFIGURATION
    Thread(target=_end, daemon=True).start()


#: What this process exits with when it has stopped.
_exit_code = 0


def _take_signals() -> None:
    """Let SIGTERM end this process at once. Granian handles it, and SIGINT, as soon as the application is loaded.

    Ctrl-C and the end of a terminal reach all processes, the main process as well, which sends SIGTERM to each of them.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The main process has them blocked, and a new process begins with what its parent has blocked.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _watch_parent() -> None:
    """End this process when its parent is gone: the port is needed by the one that is started in its place."""
    while not parent.is_gone():
        time.sleep(parent.LOOK_SECONDS)
    _end()


def _end() -> None:
    """Stop as SIGTERM does. As no parent kills this process if that takes too long, it ends itself then."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(_exit_code)
