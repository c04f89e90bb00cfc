"""The ETags that a client has seen: If-Match, by which a request changes nothing else, and If-None-Match.

Source: RFC 9110 §13.1.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
from litestar import Request
from litestar.openapi.spec import OpenAPIType, Parameter, Schema

from api.http.limits import SHOWN_CHARACTERS
from domain.runtime.errors import Invalid, StalePrecondition

_OPAQUE = r'"[!#-~\x80-\xff]*+"'
_ETAG = re.compile(rf"(W/)?({_OPAQUE})")
#: ETags with commas between them. A list may have empty elements, and must be read all the same: RFC 9110 §5.6.1.
_LIST = re.compile(rf"(?:[ \t]*+(?:(?:W/)?{_OPAQUE}[ \t]*+)?(?:,|$))+")


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The header, and the ETags in it that can match: a weak one never does."""

    written: str
    strong: Collection[str]

    def require(self, etag: str, version: int | None = None) -> None:
        """Raise StalePrecondition if the header does not name this ETag, which is that of this version."""
        if etag not in self.strong:
            raise StalePrecondition(self.written[:SHOWN_CHARACTERS], etag, version)


def if_match_of(request: Request[Any, Any, Any]) -> IfMatch | None:
    """Return what If-Match requires, or None if any version will do. Raises Invalid."""
    # A list may be spread over several headers.
    lines = request.headers.getall("if-match", None)
    if lines is None:
        return None
    written = ", ".join(lines)
    if written.strip() == "*":
        return None
    if not _LIST.fullmatch(written) or '"' not in written:
        raise Invalid("If-Match", 'it must be * or a list of ETags, such as "3"')
    return IfMatch(written, frozenset(tag for weak, tag in _ETAG.findall(written) if not weak))


class Versioned(Protocol):
    """What has a version, which is its ETag."""

    @property
    def version(self) -> int: ...


def precondition_of(request: Request[Any, Any, Any]) -> Callable[[Versioned], None]:
    """Return what raises StalePrecondition if If-Match does not name the version of what it is called with.

    Raises Invalid.
    """
    if_match = if_match_of(request)

    def require_match(one: Versioned) -> None:
        if if_match is not None:
            if_match.require(etag_of(one.version), one.version)

    return require_match


def is_known(request: Request[Any, Any, Any], etag: str) -> bool:
    """Return whether If-None-Match names this ETag, so that its client needs no content. What is no ETag names none."""
    written = ", ".join(request.headers.getall("if-none-match", []))
    return written.strip() == "*" or any(tag == etag for _, tag in _ETAG.findall(written))


def etag_of(version: int | str | datetime) -> str:
    """Return the ETag of a version, or of the time of the last change of what has no version."""
    return f'"{msgspec.to_builtins(version)}"'


#: The header, as the OpenAPI document describes it.
IF_MATCH = Parameter(
    name="If-Match",
    param_in="header",
    description="The ETags of the versions that may be changed. They are compared strongly: a weak one matches none",
    schema=Schema(type=OpenAPIType.STRING, pattern=r'^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$'),
)
