"""Metadata: what a client keeps with a reservation, as JSON that is stored and shown as the client wrote it."""

from math import isinf
from typing import Annotated, Any

import msgspec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import Meta, Raw

from api.http.decoding import sentence
from domain.runtime.errors import Invalid

#: The metadata that a client may keep with a reservation, in bytes of JSON as the client wrote it.
MAX_METADATA_BYTES = 16_384

#: The levels of objects and lists that metadata may have, and the values in all of them together. PostgreSQL reads each
#: value while other reservations are committed with it.
MAX_METADATA_DEPTH = 16
MAX_METADATA_VALUES = 1_000

#: The largest exponent of a number in metadata, either way, and its most digits: more than a `double` has. PostgreSQL
#: can't store a number that has far more, and all that is committed with it would fail.
MAX_EXPONENT = 400
MAX_DIGITS = 1_000

#: An object of JSON, or null, as the client wrote it. Decoded and written anew, 1e308 would be 309 digits.
Metadata = Annotated[Raw, Meta(examples=[{"cart": "c-7"}])]

#: Metadata that was not given.
NONE = Raw(b"null")


def require_bounded(metadata: bytes, levels: int = MAX_METADATA_DEPTH) -> None:
    """Raise Invalid unless this is null or an object of JSON that may be kept. Its size is checked before all else."""
    if len(metadata) > MAX_METADATA_BYTES:
        raise Invalid("metadata", f"it has more than {MAX_METADATA_BYTES} bytes")
    try:
        decoded = _METADATA.decode(metadata)
    except msgspec.ValidationError as error:
        raise Invalid("metadata", sentence(str(error).partition(" - at ")[0])) from error
    except UnicodeDecodeError as error:
        raise Invalid("body", f"this is not JSON in UTF-8 ({error})") from error
    if _count_values(decoded, levels, levels) > MAX_METADATA_VALUES:
        raise Invalid("metadata", f"it has more than {MAX_METADATA_VALUES} values")


def _number(written: str) -> float:
    """Read a number of metadata. Raises ValueError if PostgreSQL may not be able to store it."""
    value, exponent = float(written), written.lower().partition("e")[2] or "0"
    if isinf(value) or len(written) > MAX_DIGITS or abs(int(exponent)) > MAX_EXPONENT:
        raise ValueError(f"number out of range: it has more than {MAX_DIGITS} digits, or its exponent is too large")
    return value


_METADATA = msgspec.json.Decoder(dict[str, Any] | None, float_hook=_number)


def _count_values(value: object, left: int, levels: int) -> int:
    """Return how many values there are, this one included. Raises Invalid if they are nested in more levels."""
    if not isinstance(value, dict | list):
        return 1
    if left == 0:
        raise Invalid("metadata", f"it is nested more than {levels} deep")
    return 1 + sum(
        _count_values(one, left - 1, levels) for one in (value.values() if isinstance(value, dict) else value)
    )


class MetadataSchema(OpenAPISchemaPlugin):
    """Describes metadata in the OpenAPI document, which would say nothing about its type."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        return Schema(one_of=[Schema(type=OpenAPIType.OBJECT), Schema(type=OpenAPIType.NULL)])
