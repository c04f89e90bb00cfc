"""Paths: how a request is routed by them, and how a sku with any character is read from one."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from domain.runtime.errors import Invalid

#: The paths that are routed by another one: the sku `by-id` is no part of the path of an id.
_ROUTED_AS = {"/items/by-id": "/items/by%2Did"}


def routed(path: str, raw_path: bytes) -> str:
    """Return the path by which to route a request: decoded, but for `%2F`, since that is no `/`. Raises Invalid."""
    if b"%" in raw_path or not raw_path.isascii():
        path = _decoded(raw_path)
    return _ROUTED_AS.get(path, path)


def _decoded(raw_path: bytes) -> str:
    kept = raw_path.replace(b"%2f", b"%2F").replace(b"%2F", b"%252F")
    try:
        return unquote_to_bytes(kept).decode()
    except UnicodeDecodeError as error:
        raise Invalid("path", "it is not UTF-8") from error


def segment(text: str) -> str:
    """Return what a segment of a routed path stands for, with every `/` that it has."""
    return text.replace("%2F", "/")


def rest(scope: Mapping[str, Any]) -> str:
    """Return what follows the first segment of a path, decoded, with every `/` that it has."""
    raw: bytes = scope["raw_path"]
    return unquote_to_bytes(raw.lstrip(b"/").partition(b"/")[2]).decode()
