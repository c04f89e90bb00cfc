"""The shapes of the answers about health."""

import msgspec


class Liveness(msgspec.Struct):
    """The process runs: `status` is always `ok`."""

    status: str


class Readiness(msgspec.Struct):
    """`status` is `ok` or `unavailable`. The others are `ok`, or say what is wrong and what to do."""

    status: str
    database: str
    broker: str
    #: Whether this process records by the routes in force.
    routes: str
    #: Whether there are keys that the tokens of requests can be verified with.
    tokens: str
