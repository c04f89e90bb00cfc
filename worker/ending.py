"""How a process of a worker learns that it has to end: a signal, or the end of its parent."""

import signal
import time

from domain.runtime.processes import parent

#: Ctrl-C reaches all processes of a terminal. The parent gets it as well, and sends SIGTERM to each of them.
SIGNALS = frozenset({signal.SIGTERM, signal.SIGHUP})


def begin() -> None:
    """Let the signals wait until `wait` takes them. Call this in the main thread, before any other is started.

    A second signal, which systemd causes when it signals the whole group, then interrupts nothing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, SIGNALS)


def wait(seconds: float = float("inf")) -> bool:
    """Wait until this process has to end, for so many seconds at the most. Return whether it has to."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        received = signal.sigtimedwait(SIGNALS, min(left, parent.LOOK_SECONDS))
        # After a process was frozen, this may be another signal.
        if (received and received.si_signo in SIGNALS) or parent.is_gone():
            return True
    return False
