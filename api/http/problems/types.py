"""What a type of problem is."""

from dataclasses import dataclass

#: Where the pages about problems are, and so the beginning of each `type`.
PAGES = "/problems"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemType:
    """The status and the words of one type. `detail` has placeholders for the fields of the error."""

    status: int
    title: str
    detail: str
    #: When it is the answer, and what a client can do then, in Markdown.
    when: str
    remedy: str
    #: The part of the request that is at fault, where the error itself does not name it.
    field: str | None = None

    @property
    def slug(self) -> str:
        return self.title.lower().replace(" ", "-")

    @property
    def uri(self) -> str:
        """The `type` of its problems: a reference to the page about it, relative to the API."""
        return f"{PAGES}/{self.slug}"
