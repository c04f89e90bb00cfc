"""The ports at which a process listens, and the connections that it may have there."""

import resource
import socket
from errno import EADDRNOTAVAIL
from socket import AF_INET, AF_INET6

from domain.runtime.errors import ConfigurationError

#: The files that a process needs beside its connections.
OTHER_FILES = 200


def require_free(host: str, port: int, variable: str = "PORT") -> None:
    """Raise ConfigurationError if this process can't listen there, or another process does already.

    A server itself would share the port with the other process. `variable` is the one that names the port.
    """
    with socket.socket(AF_INET6 if ":" in host else AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == EADDRNOTAVAIL:
                raise ConfigurationError(f"HOST: {host} is no address of this machine.") from error
            raise ConfigurationError(
                f"{variable}: {port} can't be used ({error.strerror})."
                " Stop the process that uses it, or choose another port."
            ) from error


def allow_connections(most: int) -> int:
    """Let this process open so many files that it can have that many connections. Return how many it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = most + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    return files - OTHER_FILES
