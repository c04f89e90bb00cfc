"""The JSON Schemas of event payloads: schemas/<type>.v1.json, one for each type that may be recorded."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError

#: A change that a consumer could notice needs a new version, in a file beside the old one.
VERSION = "v1"

SCHEMAS = Path(__file__).parent / "schemas"


class InvalidEvent(Exception):
    """Raised when a payload does not fit the schema of its type: a bug of ours.

    The message names the type, the member and the rule, and no value.
    """

    def __init__(self, event_type: str, reason: str) -> None:
        super().__init__(f"{event_type} is not recorded, and neither is anything beside it: {reason}")


def event_types() -> Sequence[str]:
    """Return the types that have a schema, in the order of the alphabet: no other event is ever recorded."""
    ending = f".{VERSION}.json"
    return sorted(path.name.removesuffix(ending) for path in SCHEMAS.glob(f"*{ending}"))


def schema_id(event_type: str) -> str:
    """Return the URN of the schema that payloads of this type fit."""
    return f"urn:holdfast:event:{event_type}:{VERSION}"


def validate(event_type: str, payload: Mapping[str, Any]) -> None:
    """Raise InvalidEvent unless the payload fits the schema of its type."""
    try:
        _validator(event_type).validate(payload)
    except ValidationError as error:
        place = ".".join(["payload", *map(str, error.instance_path)])
        # Not `from error`: it holds the payload, which must not get into a log.
        raise InvalidEvent(event_type, f"{place}: {error.message}") from None
    except ValueError as error:
        raise InvalidEvent(event_type, f"payload: {error}") from None


@cache
def _validator(event_type: str) -> Draft202012Validator:
    path = SCHEMAS / f"{event_type}.{VERSION}.json"
    try:
        schema = json.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidEvent(event_type, f"it has no schema; write domain/events/schemas/{path.name}") from None
    return Draft202012Validator(schema, validate_formats=True, mask="its value")
