"""A house that is asked for what can't be, and in which nothing must have changed afterwards."""

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

#: What is there: the id and the sku of an item, and what stands for the id of a hold of it.
ITEM, SKU, HOLD = "1", "ROOM-101", "{hold}"


@dataclass
class House:
    """Takes requests that it must refuse."""

    api: httpx.Client
    hold: str

    def refuses(self, method: str, path: str, **request: Any) -> Any:
        """Send a request that can't be. Return the problem that it is answered with."""
        answer = self.api.request(method, path.replace(HOLD, self.hold), **request)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem["type"].startswith("urn:holdfast:problem:")
        assert problem["title"] and problem["detail"]
        return problem

    def refuses_body(self, body: str | bytes, path: str = "/reservations", **headers: str) -> Any:
        method = "PATCH" if path.startswith("/items/") else "POST"
        return self.refuses(method, path, content=body, headers=JSON | headers)


@contextmanager
def a_house(api: httpx.Client, db: Db) -> Iterator[House]:
    """A house with one item and one hold. When the block ends, nothing may have changed."""
    item = an_item(db, quantity=5, sku=SKU)
    house = House(api, str(a_hold(db, item, quantity=2).id))
    before = everything(db)
    yield house
    assert everything(db) == before


def everything(db: Db) -> dict[str, list[str]]:
    """Return all that is in the database, by table."""
    with db.begin() as session:
        return {table.name: sorted(map(repr, session.execute(select(table)))) for table in metadata.sorted_tables}
