"""The OpenAPI document: the headers and the examples that the signatures of the handlers do not show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIHeader,
    OpenAPIResponse,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
)

from api.http.headers import CLIENT, KEY, REQUEST_ID, RETRY_AFTER, SENT_REQUEST_ID
from api.http.problems import MEDIA_TYPE, schemas

#: The moments at which everything in the examples was made, and was changed.
MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
CHANGED = MADE + timedelta(minutes=2)


#: How requests say who sends them.
BEARER = "bearer"
SECURITY = SecurityScheme(
    type="http",
    scheme="bearer",
    description="A token (JWT) of the identity provider, or an API key. `bin/token` prints one for the demo.",
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How the document shows an operation: an example of its answer and of its body, and the headers of both."""

    answer: msgspec.Struct
    body: msgspec.Struct | None = None
    reads: Sequence[Parameter] = ()
    writes: Mapping[str, OpenAPIHeader] = field(default_factory=dict)


def complete(
    document: OpenAPI, operations: Mapping[str, Shown], *, requires_keys: bool, requires_credentials: bool
) -> None:
    """Add to a document that was generated from the handlers what their signatures do not show.

    `operations` are by the names of the handlers. `requires_keys` is whether changes need an idempotency key, and
    `requires_credentials` whether every operation that may refuse its sender needs a token or an API key.
    """
    for path in (document.paths or {}).values():
        for operation in filter(None, (path.get, path.post, path.put, path.patch)):
            _complete(operation, operations[str(operation.operation_id)])
            if requires_credentials:
                operation.security = [{BEARER: []}] if "401" in (operation.responses or {}) else []
            if requires_keys:
                operation.parameters = [
                    replace(one, required=True) if one is KEY else one for one in operation.parameters or []
                ]
    if requires_credentials:
        document.components.security_schemes = {BEARER: SECURITY}
    for name in _strict(operations):
        document.components.schemas[name].additional_properties = False
    document.components.schemas.update(schemas.components())


def _strict(operations: Mapping[str, Shown]) -> Collection[str]:
    """Return the names of the structs that refuse unknown fields, which Litestar's schemas do not say."""
    bodies = {type(shown.body) for shown in operations.values() if shown.body is not None}
    _, schemas = msgspec.json.schema_components(bodies)
    return [name for name, schema in schemas.items() if schema.get("additionalProperties") is False]


def _complete(operation: Operation, shown: Shown) -> None:
    operation.summary = str(operation.operation_id).replace("_", " ").capitalize()
    operation.parameters = [*(operation.parameters or []), *shown.reads, CLIENT, SENT_REQUEST_ID]
    if isinstance(operation.request_body, RequestBody):
        _complete_body(operation.request_body, shown.body)
    for status, response in (operation.responses or {}).items():
        assert isinstance(response, OpenAPIResponse)
        response.headers = dict(REQUEST_ID)
        if status.startswith("2"):
            response.headers |= shown.writes
            _exemplify(response, shown.answer)
        elif status in {"429", "503"}:
            response.headers |= RETRY_AFTER
        _complete_problems(response)


def _complete_body(body: RequestBody, example: msgspec.Struct | None) -> None:
    fields = msgspec.to_builtins(example, enc_hook=msgspec.json.decode)
    _exemplify(body, {name: value for name, value in fields.items() if value is not None})
    for media in body.content.values():
        if isinstance(media.schema, Schema) and media.schema.one_of:  # a body or None: the body is optional
            media.schema, body.required = media.schema.one_of[0], False


def _complete_problems(response: OpenAPIResponse) -> None:
    """Give the problems of a response the schemas of their types, and name their examples by their types."""
    media = (response.content or {}).get(MEDIA_TYPE)
    if media is not None:
        examples: list[Any] = [one.value for one in (media.examples or {}).values() if isinstance(one, Example)]
        media.schema = schemas.schema_of(one["type"] for one in examples)
        media.examples = {one["type"].rpartition("/")[2]: Example(summary=one["title"], value=one) for one in examples}


def _exemplify(shown: RequestBody | OpenAPIResponse, value: object) -> None:
    for media in (shown.content or {}).values():
        media.examples = {"example": Example(value=value)}
