"""The ports that `bin/up` needs, and who has one that is taken."""

from typing import Any

import psutil

from api import ports
from domain.runtime.errors import ConfigurationError


def require_free(host: str, port: int, variable: str) -> None:
    """Raise ConfigurationError if a process listens there already. It names that process, where that can be known."""
    try:
        ports.require_free(host, port, variable)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}{_who_listens(port)}") from error


def _who_listens(port: int) -> str:
    try:
        listening = {one.pid for one in psutil.net_connections("tcp") if _is_at(one, port)}
        # The system says of the processes of other users that they listen, and not which they are.
        names = [f"process {pid} ({psutil.Process(pid).name()})" for pid in sorted(filter(None, listening))]
    except psutil.Error:
        return ""
    return f" It is used by {' and '.join(names)}." if names else ""


def _is_at(connection: Any, port: int) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port)
