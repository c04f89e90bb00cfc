"""Counting responses, by operation and status."""

from functools import cache

from litestar.types import Message, Scope

from domain.runtime.metrics import Counter

REQUESTS = Counter(
    "holdfast_requests",
    "Responses by operation and status. Alert on any 500, and if 503 lasts for a minute.",
    ["operation", "status"],
)


async def count(message: Message, scope: Scope) -> None:
    """Count a response when it begins to be sent."""
    if message["type"] == "http.response.start":
        handler = scope.get("route_handler")
        count_response(handler.handler_name if handler else "none", message["status"])


def count_response(operation: str, status: int) -> None:
    """Count a response."""
    _requests(operation, status).inc()


@cache
def _requests(operation: str, status: int) -> Counter:
    return REQUESTS.labels(operation, status)
