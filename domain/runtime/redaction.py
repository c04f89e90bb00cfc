"""Redaction: what looks like a secret is taken out of log lines.

This is the last resort: nothing logs a secret on purpose, and in ordinary use this finds nothing.
"""

import logging
import re
from collections.abc import Callable, MutableMapping
from typing import Any

REDACTED = "[redacted]"

#: A line without any of these has no secret that would be found. To look for them takes a microsecond.
_SIGNS = re.compile(r"eyJ|hf_|whsec_|@|uthorization|earer |asic |AUTHORIZATION|BEARER |BASIC ", re.ASCII)

#: What is taken out, the first group before it excepted. Each of them is found in time that grows with the line only.
_PATTERNS = (
    # JSON Web Tokens, API keys, and the keys of webhooks.
    re.compile(r"()\beyJ[\w-]{6,}(?:\.[\w-]*){1,4}", re.ASCII),
    re.compile(r"()\b(?:hf|whsec)_[\w+/=-]{6,}", re.ASCII),
    re.compile(r"(\b(?:bearer|basic) )[^\s\"'\\,;]{4,}", re.ASCII | re.IGNORECASE),
    re.compile(
        r"(\bauthorization[\"'\\]*\s?[:=]\s?[\"'\\]*)[^\s\"'\\,;]+(?: [^\s\"'\\,;]+)?", re.ASCII | re.IGNORECASE
    ),
    # The password of a URL.
    re.compile(r"(://[^\s/:@\"'\\]{0,255}:)[^\s@\"'\\]{1,1024}(?=@)", re.ASCII),
)


def redact(text: str) -> str:
    """Return a text without what looks like a secret."""
    if not _SIGNS.search(text):
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text


Render = Callable[[Any, str, MutableMapping[str, Any]], str | bytes]


def redacting(render: Render) -> Callable[[Any, str, MutableMapping[str, Any]], str]:
    """Return the last processor of structlog, which renders a line, with its secrets taken out."""

    def rendered(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        line = render(logger, name, event)
        return redact(line if isinstance(line, str) else line.decode())

    return rendered


class RedactingFormatter(logging.Formatter):
    """Formats the log records of libraries, with their secrets taken out."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return redact(super().format(record))
