"""The pages about the types of problems, to which the `type` of each problem leads."""

from collections.abc import Sequence

from litestar import get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler

from api.http.problems import ALL, PAGES, pages

#: As text, so that it can be read in a browser and with curl, and nothing in it is executed.
MEDIA_TYPE = "text/plain"

_PAGES = {one.slug: pages.page(one) for one in ALL}


@get(PAGES, media_type=MEDIA_TYPE, include_in_schema=False, operation="reference.read")
async def list_problem_types() -> str:
    """List the types of problems."""
    return pages.index()


@get(f"{PAGES}/{{slug:str}}", media_type=MEDIA_TYPE, include_in_schema=False, operation="reference.read")
async def get_problem_type(slug: str) -> str:
    """Describe a type of problems."""
    if slug not in _PAGES:
        raise NotFoundException
    return _PAGES[slug]


ROUTES: Sequence[HTTPRouteHandler] = (list_problem_types, get_problem_type)
