"""Free ports, for the processes and servers that tests start."""

import random
import socket
from contextlib import suppress

#: Linux gives ports from 32768 on to outgoing connections.
PORTS = range(15_000, 32_768)

_dice = random.SystemRandom()


def free_port() -> int:
    """Return a port that nobody listens on, for a process that is started soon.

    No outgoing connection takes it meanwhile. Test workers that run at the same time choose at random, so they
    hardly ever choose the same port.
    """
    while True:
        port = _dice.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
