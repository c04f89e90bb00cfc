"""A connection on which more arrived than the response is not used again.

httpcore keeps such bytes and takes them for the beginning of the next response. A server that answers one request twice
would answer the next request too, before it has read that request.
"""

from typing import Any

import httpcore


def end_connection_with_unread_bytes(response: httpcore.Response) -> None:
    """Have the connection closed together with the response if bytes are left after it was read.

    Bytes that arrive later are found by httpcore: it closes a connection that has something to read before a request.
    """
    stream: Any = response.stream
    # httpcore has no public way to the parser of a connection, an h11.Connection.
    parser = stream._stream._connection._h11_state
    unread, _ = parser.trailing_data
    if unread:
        # httpcore closes a connection whose parser has failed, and keeps any other.
        parser.send_failed()
