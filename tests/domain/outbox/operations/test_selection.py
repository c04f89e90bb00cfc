"""Selections: a selection that means nothing is refused before anything is changed."""

from datetime import timedelta
from typing import Any

import pytest

from domain.outbox.operations.selection import Among, Selection
from domain.runtime.database import now
from domain.runtime.errors import Invalid
from tests.support.builders import Db


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "selection"),
        ({"group": "no"}, "group"),
    ],
)
def test_a_selection_without_a_filter_or_with_a_wrong_group_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        Selection(among=Among.DEAD, **fields)

    assert refused.value.field == field


def test_a_selection_must_not_begin_in_the_future(db: Db) -> None:
    with db.begin() as session:
        future = Selection(among=Among.DEAD, since=now(session) + timedelta(days=1))
        with pytest.raises(Invalid, match="future"):
            future.as_of_now(session)
