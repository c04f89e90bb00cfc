"""What is wrong with a URL, without quoting a part of it: it may hold a password.

A slash, a question mark or a hash in a password ends the host, and the rest is then taken for a port, a path or an
option. What a parser or a library says about such a URL would quote a part of the password.
"""

from urllib.parse import SplitResult, urlsplit

ESCAPES = "in a user or password write / as %2F, ? as %3F, # as %23 and @ as %40"

UNREADABLE_HOST = f"its host can't be read; {ESCAPES}"

UNREADABLE_PORT = f"its port can't be read. It must be a number from 0 to 65535; {ESCAPES}"

#: The end of a password that was not encoded looks like this.
AT_BEHIND_HOST = f"there is an @ behind its host; {ESCAPES}, and in every other part @ as %40 as well"

TWO_AT = f"there are two @ before its host; {ESCAPES}"


def split(url: str) -> SplitResult:
    """Return the parts of a URL of which each is certain to be what it seems. Raises ValueError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(UNREADABLE_HOST) from None
    has_host = url.partition(":")[2].startswith("//")
    if has_host and "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError(AT_BEHIND_HOST)
    return parts


def require_readable_port(url: str) -> None:
    """Raise ValueError if the port of a URL can't be read."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(UNREADABLE_PORT) from None
