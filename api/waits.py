"""After how long a client may ask again that was refused because something is busy or down."""

import random

from domain.runtime.errors import RateLimited, Unavailable

#: The longest wait, as a multiple of the shortest. Clients that are refused at the same moment have different waits, or
#: all of them would come again at the same moment.
LONGEST_WAIT = 3


def wait_seconds(error: Unavailable) -> int:
    """Return after how many seconds a client may ask again."""
    if isinstance(error, RateLimited):
        return error.retry_after_seconds  # Each sender has its own.
    return random.randint(error.retry_after_seconds, LONGEST_WAIT * error.retry_after_seconds)
