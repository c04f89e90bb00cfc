"""The ports at which a process listens."""

import socket
from errno import EADDRNOTAVAIL
from socket import AF_INET, AF_INET6

from domain.runtime.errors import ConfigurationError


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
