"""The user name and the password in the URL of a server: how they are sent, and how answers repeat them.

A server that fails often answers with the request, in whatever form its framework shows it.
"""

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

import httpx

from domain.runtime.redaction import REDACTED

#: The fewest characters of a password that is looked for. A shorter one is in too many words.
SHORTEST = 4


def basic(url: httpx.URL) -> str | None:
    """Return the credentials of a URL as the header `Authorization` has them after `Basic`, or None without any."""
    return b64encode(f"{url.username}:{url.password}".encode()).decode("ascii") if url.userinfo else None


def pattern_of(url: httpx.URL) -> re.Pattern[str] | None:
    """Return what finds the credentials of a URL in a text, the longest forms first, or None without any."""
    forms = {form for secret in _secrets(url) for form in _forms(secret) if len(form) >= SHORTEST}
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))) if forms else None


def without(pattern: re.Pattern[str] | None, text: str) -> str:
    """Return a text without what the pattern finds."""
    return pattern.sub(REDACTED, text) if pattern else text


def _secrets(url: httpx.URL) -> Iterator[str]:
    """Yield the credentials in base64, and the password, as it is and as it is in the URL.

    Some services take a key as the user name, without any password.
    """
    if encoded := basic(url):
        # The padding is left out: it is written as `=`, `%3D` or `\u003d`.
        yield encoded.rstrip("=")
        yield quote(encoded.rstrip("="), safe="")
        name, _, password = url.userinfo.decode("ascii").partition(":")
        yield password or name
        yield url.password or url.username


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as texts have it: as it is, and as JSON, PHP's JSON, HTML and Python's `repr` write it."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield html.escape(secret)
    yield html.escape(secret, quote=False).replace("'", "&#39;").replace('"', "&#34;")
    yield repr(secret)[1:-1]
