"""What is the same for everybody, and kept by clients: bytes that are made once, with an ETag."""

import hashlib
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response

from api.http.preconditions import is_known

#: Hexadecimal digits of a hash, so many that no two contents have the same.
ETAG_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes, and how they are served. A client keeps them for so many seconds before it asks again."""

    content: bytes
    media_type: str
    seconds: int
    etag: str

    @classmethod
    def of(cls, content: bytes, media_type: str, *, seconds: int) -> "Kept":
        """Return what serves these bytes."""
        return cls(content, media_type, seconds, f'"{hashlib.sha256(content).hexdigest()[:ETAG_DIGITS]}"')

    def answer(self, request: Request[Any, Any, Any]) -> Response[bytes | None]:
        """Return the response with the bytes, or 304 for a client that has them."""
        headers = {"ETag": self.etag, "Cache-Control": f"public, max-age={self.seconds}"}
        if is_known(request, self.etag):
            return Response(None, status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)
