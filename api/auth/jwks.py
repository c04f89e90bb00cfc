"""Reading the keys of an identity provider from its JWKS document."""

import asyncio
from urllib.parse import urlsplit

import httpx

from api.auth.keys import Keys, UnusableKeys, read_jwks

#: A provider that has not sent its document within this time is down.
SECONDS = 5.0

#: A document with more bytes is no JWKS.
MOST_BYTES = 262_144

#: What is compressed could be larger than any document once it is read.
UNCOMPRESSED = {"Accept-Encoding": "identity"}


class ProviderUnavailable(Exception):
    """Raised when an identity provider serves no keys that can be used. The message says why."""


class Provider:
    """An identity provider, by the URL of its JWKS document."""

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self) -> Keys:
        """Return its keys. Raises ProviderUnavailable."""
        try:
            return read_jwks(asyncio.run(self._fetch()))
        except UnusableKeys as unusable:
            raise ProviderUnavailable(f"what it serves can't be used: {unusable}") from None
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise ProviderUnavailable(_described(error)) from None

    async def _fetch(self) -> bytes:
        """Return the document, whole and within one deadline."""
        async with asyncio.timeout(SECONDS), httpx.AsyncClient(timeout=SECONDS) as client:
            async with client.stream("GET", self._url, headers=UNCOMPRESSED) as response:
                response.raise_for_status()
                document = b""
                async for piece in response.aiter_raw():
                    document += piece
                    if len(document) > MOST_BYTES:
                        raise UnusableKeys(f"it has more than {MOST_BYTES:,} bytes")
                return document


def _described(error: Exception) -> str:
    """Return in words what went wrong. Many errors have no message of their own."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return f"it answers {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"it has not sent its document within {SECONDS:g} s"
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"it can't be read ({reason})"


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown: without a user, a password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
