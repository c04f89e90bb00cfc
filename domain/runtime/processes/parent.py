"""How a process learns that its parent is gone: one that was killed with SIGKILL sends no signal."""

import os
from multiprocessing import parent_process

#: A process looks this often, in seconds, whether its parent lives.
LOOK_SECONDS = 1.0


def is_gone() -> bool:
    """Return whether the parent that has started this process has ended. A process that has none has lost none."""
    parent = parent_process()
    return parent is not None and os.getppid() != parent.pid
