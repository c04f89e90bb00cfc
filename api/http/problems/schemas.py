"""The schemas of problems in the OpenAPI document: one for each type, with its members."""

from collections.abc import Iterable, Mapping

from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Reference, Schema

from api.http.problems.members import COMMON, FURTHER, OPTIONAL, Member
from api.http.problems.table import ALL, FACTS
from api.http.problems.types import ProblemType

_COMPONENTS = "#/components/schemas/"

#: The name of the schema that lists all types.
TYPES = "ProblemType"


def components() -> Mapping[str, Schema]:
    """Return the schemas of all types, by name, and the list of the types."""
    types = Schema(
        type=OpenAPIType.STRING,
        enum=[one.uri for one in ALL],
        description="The types of problems. Each is a reference to the page about it.",
    )
    return {TYPES: types, **{_name(one): _schema(one) for one in ALL}}


def schema_of(uris: Iterable[str]) -> Schema | Reference:
    """Return the schema of a response whose problem has one of these types."""
    wanted = set(uris)
    references = [Reference(ref=_COMPONENTS + _name(one)) for one in ALL if one.uri in wanted]
    return references[0] if len(references) == 1 else Schema(one_of=references)


def _name(one: ProblemType) -> str:
    return "".join(word.capitalize() for word in one.slug.split("-")) + "Problem"


def _schema(one: ProblemType) -> Schema:
    names = [*COMMON, *FACTS[one]]
    own = {
        "type": Schema(all_of=[Reference(ref=_COMPONENTS + TYPES)], const=one.uri),
        "status": Schema(type=OpenAPIType.INTEGER, const=one.status, description=COMMON["status"].text),
    }
    return Schema(
        type=OpenAPIType.OBJECT,
        title=one.title,
        description=f"{one.when} {one.remedy}",
        properties={name: own.get(name) or _member({**COMMON, **FURTHER}[name]) for name in names},
        required=[name for name in names if name not in OPTIONAL],
    )


def _member(member: Member) -> Schema:
    types = [OpenAPIType(name) for name in member.types]
    return Schema(
        type=types[0] if len(types) == 1 else types,
        format=OpenAPIFormat(member.format) if member.format else None,
        description=member.text,
    )
