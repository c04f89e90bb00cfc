"""The ports at which a process listens, and the connections that it may have there."""

import resource
import socket
import time
from errno import EACCES, EADDRINUSE
from socket import AF_INET, AF_INET6

from domain.runtime.errors import ConfigurationError

#: The processes of a server whose parent was killed notice that within a second, and have ended after this time.
ENDING_SECONDS = 3.0
LOOK_SECONDS = 0.1

#: The files that a process needs beside its connections.
OTHER_FILES = 200

#: What to do if a port can't be used, by the error. Any other error is one of the address.
ADVICE = {
    EADDRINUSE: "Stop the process that uses it, or choose another port.",
    EACCES: "Choose a port above 1023, or let this process use those below.",
}


def require_free(host: str, port: int, variable: str = "PORT") -> None:
    """Raise ConfigurationError if this process can't listen there, or another process does already.

    A server itself would share the port with the other process. `variable` is the one that names the port. It waits
    for a moment: the processes of a server that was killed end a little later.
    """
    until = time.monotonic() + ENDING_SECONDS
    while (problem := _why_not_free(host, port)) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    if problem:
        raise ConfigurationError(f"{variable}: {port} can't be used {problem}")


def _why_not_free(host: str, port: int) -> str | None:
    """Return why this process can't use the port, None if it can. Raises ConfigurationError if it is the address."""
    with socket.socket(AF_INET6 if ":" in host else AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in ADVICE:
                return f"({error.strerror}). {ADVICE[error.errno]}"
            raise ConfigurationError(
                f"HOST: no process can listen at {host} on this machine ({error.strerror}). Set it to an address of"
                " this machine, or to 0.0.0.0 or :: for all of them."
            ) from error
    return None


def allow_connections(most: int) -> int:
    """Let this process open so many files that it can have that many connections. Return how many it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = most + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    return files - OTHER_FILES
