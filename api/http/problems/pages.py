"""The pages about problems, in Markdown: one for each type, and all of them as docs/problems.md.

`bin/python -m api.http.problems.pages > docs/problems.md` writes that file.
"""

from collections.abc import Iterable, Mapping

from api.http.problems.members import COMMON, FURTHER, Member
from api.http.problems.table import ALL, FACTS
from api.http.problems.types import PAGES, ProblemType

_INTRODUCTION = f"""\
# Problems

Every refusal and every failure of [the HTTP API](api.md) is a problem: `application/problem+json`, RFC 9457. Its
`type` is a path such as `{PAGES}/sold-out`. The API itself answers there with the text that this page has about that
type, so a `type` can be followed without this page. Programs tell problems apart by their `type`, which is stable;
`title` and `detail` are for people.

Each problem has these members, and those of its type:

"""


def document() -> str:
    """Return docs/problems.md."""
    listed = "\n".join(f"- {one.status} [{one.slug}](#{one.slug})" for one in ALL)
    return _INTRODUCTION + _table(COMMON) + f"\n{listed}\n\n" + "\n".join(map(page, ALL))


def page(one: ProblemType) -> str:
    """Return the page about a type."""
    facts = {name: FURTHER[name] for name in FACTS[one]}
    members = f"\n{_table(facts)}" if facts else ""
    return f"## {one.slug}\n\nStatus {one.status}. {one.when}\n\nWhat to do: {one.remedy}\n{members}"


def index(types: Iterable[ProblemType] = ALL) -> str:
    """Return the list of the pages."""
    return "# Problems\n\n" + "".join(f"- {one.status} {one.uri}\n" for one in types)


def _table(members: Mapping[str, Member]) -> str:
    rows = (f"| `{name}` | {_type(member)} | {member.text} |\n" for name, member in members.items())
    return "| member | type | what it is |\n|---|---|---|\n" + "".join(rows)


def _type(member: Member) -> str:
    return member.format or " or ".join(member.types)


if __name__ == "__main__":
    print(document(), end="")
