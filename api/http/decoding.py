"""Decoding the body of a request: strictly, and with an error that names the field."""

import re
from collections.abc import Generator
from typing import Any, TypeVar

import msgspec
from litestar.dto import AbstractDTO, DTOFieldDefinition
from litestar.exceptions import HTTPException
from litestar.openapi.spec import Reference, Schema
from litestar.types import LitestarEncodableType
from litestar.typing import FieldDefinition

from api.http.limits import SHOWN_CHARACTERS
from domain.runtime.errors import Invalid

#: The pattern of a text without NUL. PostgreSQL can't store NUL, so nothing that contains one can be found.
NO_NUL = "^[^\\x00]*$"

#: Ends a pattern where the text ends. To Python, `$` alone also is where a line break at the very end begins.
END = r"$(?!\n)"

T = TypeVar("T", bound=msgspec.Struct)


class Strict(AbstractDTO[T]):
    """Decodes JSON into exactly the annotated struct.

    Litestar's own decoding is lax: it would accept "2" or true as the number 2.
    """

    def decode_bytes(self, value: bytes) -> Any:
        """Return the struct. Raises Invalid, or an HTTPException for another content type."""
        return decode(self.asgi_connection.headers.get("content-type", ""), value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Build nothing: the struct is its own model."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False

    def data_to_encodable_type(self, data: Any) -> LitestarEncodableType:
        encodable: LitestarEncodableType = data
        return encodable


def decode(content_type: str, body: bytes, model: type[T]) -> T:
    """Decode a body of that content type. Raises Invalid, or an HTTPException for a type that is not JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HTTPException(status_code=415)
    return read(body, model)


def read(body: bytes, model: type[T]) -> T:
    """Decode a JSON body. Raises Invalid."""
    try:
        decoded = msgspec.json.decode(body, type=model)
        if rb"\u0000" in body:
            _refuse_nul(msgspec.to_builtins(decoded, enc_hook=msgspec.json.decode), "")
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = "half of a character, a surrogate, is alone" if _ALONE.search(body) else f"{error}"
        raise Invalid("body", f"this is not JSON in UTF-8 ({reason})") from error
    except RecursionError as error:
        raise Invalid("body", "it is nested too deeply") from error
    return decoded


_ALONE = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
_MESSAGE = re.compile(r"(?P<reason>.*?)(?: - at `(?:key in )?\$\.?(?P<place>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_INDEX = re.compile(r"\[.*?\]")
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")


def _invalid(message: str) -> Invalid:
    """Return the field and the reason that a message of msgspec names. A nested field is written as `guest.id`."""
    parts = _MESSAGE.fullmatch(message)
    assert parts is not None
    place, reason = _INDEX.sub("", parts["place"] or ""), parts["reason"]
    if unknown := _UNKNOWN.fullmatch(reason):
        return Invalid(within(place, unknown["field"])[:SHOWN_CHARACTERS], "unknown field")
    if missing := _MISSING.fullmatch(reason):
        return Invalid(within(place, missing["field"]), "it is required")
    return Invalid(place or "body", sentence(reason))


def given_fields(patch: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that a PATCH gives. Raises Invalid if there are none."""
    fields = msgspec.structs.asdict(patch)
    given = {name: value for name, value in fields.items() if value is not msgspec.UNSET}
    if not given:
        raise Invalid("body", f"it is empty; give {' or '.join(fields)}")
    return given


def within(place: str, field: str) -> str:
    """Return the name of a field, counted from the top of the body."""
    return f"{place}.{field}" if place else field


def sentence(reason: str) -> str:
    """Return a message of msgspec so that it can follow the name of a field: in lower case, without backquotes."""
    return reason[:1].lower() + reason[1:].replace("`", "")


def _refuse_nul(value: object, field: str) -> None:
    """Raise Invalid if any text within a value contains NUL, which PostgreSQL can't store."""
    match value:
        case str() if "\0" in value:
            raise Invalid(field, "it contains a NUL character, which can't be stored")
        case dict():
            for key, inner in value.items():
                _refuse_nul(key, field)
                _refuse_nul(inner, within(field, key))
        case list():
            for inner in value:
                _refuse_nul(inner, field)
