"""When a process that has died is started again, and when it is given up. Pure."""

from signal import SIGBUS, SIGKILL, Signals

#: By then a process has read its configuration, imported what it needs and begun its work: on a busy machine too. One
#: that dies sooner would probably die again at once.
WELL_SECONDS = 10.0

#: The pauses before a process is started again, by how many times in a row it has died early. After one more such death
#: it is given up. All of this takes less than a minute, so a supervisor of ours, or a person, soon learns of it; and a
#: PostgreSQL or a disk that is away for some seconds does not end anything.
PAUSES_SECONDS = (0.0, 1.0, 2.0, 4.0)

#: So many early deaths in a row are a crash loop.
CRASH_LOOP = len(PAUSES_SECONDS) + 1


class Restarts:
    """What is known of the deaths of one process."""

    def __init__(self) -> None:
        self._early = 0

    def pause_after(self, lived_seconds: float) -> float | None:
        """Return after how many seconds a process that has died is started again, or None if it is given up.

        A process that had lived well is started again at once.
        """
        self._early = 0 if lived_seconds >= WELL_SECONDS else self._early + 1
        return None if self._early >= CRASH_LOOP else PAUSES_SECONDS[max(0, self._early - 1)]


#: What the kernel sends if nobody else has, by the exit code.
_BY_THE_KERNEL = {
    -SIGKILL: "SIGKILL, by the kernel for lack of memory if nobody has sent it",
    -SIGBUS: "SIGBUS, by the kernel: probably the disk of TMPDIR is full, where processes share their metrics",
}


def cause(exit_code: int) -> str:
    """Return what ended a process, by its exit code, which is the negative number of a signal that has killed it."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    if exit_code in _BY_THE_KERNEL:
        return _BY_THE_KERNEL[exit_code]
    known = -exit_code in set(Signals)  # the real-time signals but two have no name
    return Signals(-exit_code).name if known else f"signal {-exit_code}"
