"""Requests that the API must refuse, and an environment in which they must have changed nothing."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import select

from api.http.problems import MEDIA_TYPE
from domain.runtime.database import metadata
from tests.support.builders import Db, a_hold, an_item

JSON = {"Content-Type": "application/json"}

#: The id and the sku of the item, and a placeholder for the id of the hold.
ITEM, SKU, HOLD = "1", "ROOM-101", "{hold}"

#: The paths whose bodies are sent with PATCH.
PATCHED = re.compile(r"/items/.*|/reservations/[^/]*")


@dataclass
class Environment:
    """An API with one item and one hold of it, whose id is `hold`."""

    api: httpx.Client
    hold: str

    def refuses(self, method: str, path: str, **request: Any) -> Any:
        """Send a request that must be refused. Return the problem in the answer."""
        answer = self.api.request(method, path.replace(HOLD, self.hold), **request)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["type"].startswith("/problems/")
        assert problem["request_id"] == answer.headers["X-Request-Id"]
        assert problem["title"] and problem["detail"]
        return problem

    def refuses_body(self, body: str | bytes, path: str = "/reservations", **headers: str) -> Any:
        """Send a body that must be refused. Return the problem in the answer."""
        method = "PATCH" if PATCHED.fullmatch(path) else "POST"
        return self.refuses(method, path, content=body, headers=JSON | headers)


@contextmanager
def unchanged_environment(api: httpx.Client, db: Db) -> Iterator[Environment]:
    """Provide an environment with one item and one hold. When the block ends, nothing may have changed."""
    item = an_item(db, quantity=5, sku=SKU)
    environment = Environment(api, str(a_hold(db, item, quantity=2).id))
    before = everything(db)
    yield environment
    assert everything(db) == before


def everything(db: Db) -> dict[str, list[str]]:
    """Return every row of the database, by table."""
    with db.begin() as session:
        return {table.name: sorted(map(repr, session.execute(select(table)))) for table in metadata.sorted_tables}
