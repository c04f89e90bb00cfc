"""JSON for PostgreSQL, encoded in C: each set of requests is written as JSON."""

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode(value: object) -> str:
    """Return a value as JSON. UUIDs and timestamps become text."""
    return _ENCODER.encode(value).decode()


def encoded(text: str) -> object:
    """Return a value that `encode` writes as this text, which is JSON already."""
    return msgspec.Raw(text.encode())
