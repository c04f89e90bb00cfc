"""Problems: every refusal and every failure as problem+json, RFC 9457. A test proves that the table is complete."""

from api.http.problems.rendering import (
    MEDIA_TYPE,
    body_of,
    body_of_early,
    of_any,
)
from api.http.problems.table import ALL, BUG, EARLY, FACTS, OF_ERRORS
from api.http.problems.types import PAGES, ProblemType

__all__ = [
    "ALL",
    "BUG",
    "EARLY",
    "FACTS",
    "MEDIA_TYPE",
    "OF_ERRORS",
    "PAGES",
    "ProblemType",
    "body_of",
    "body_of_early",
    "of_any",
]
