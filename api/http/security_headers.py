"""Security headers: what browsers may do with our answers, where an answer does not say it itself.

There is no Strict-Transport-Security: TLS ends before Holdfast, and only who ends it knows whether a name has TLS.
"""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]

#: The header Server is empty, as the server would write its own name.
_ALWAYS: Headers = (
    (b"server", b""),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

#: An answer of the API is no page: nothing in it may be loaded or shown in a frame.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

#: Answers depend on who asks, and many hold personal data.
_NOT_STORED = (b"cache-control", b"no-store")


def secured(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with those that it lacks."""
    names = {name for name, _ in headers}
    complete = [*headers, *_ALWAYS]
    if b"content-security-policy" not in names:
        complete.append(_POLICY)
    if b"cache-control" not in names:
        complete.append(_NOT_STORED)
    return complete
