"""The harness of `feed:`: the table of the feed, in the database of the tests."""

import json
import os
from collections.abc import Sequence
from typing import ClassVar

import psycopg

from tests.conformance.harness import Harness, Trouble

NO_SERVER = "the feed is a table of the database in which the outbox is: it fails with the outbox or not at all"

READ = "SELECT event_id, payload FROM feed_events ORDER BY position"


class FeedHarness(Harness):
    scheme = "feed"
    url = "feed:"
    impossible: ClassVar = dict.fromkeys(Trouble, NO_SERVER)

    def accepted(self) -> Sequence[str]:
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            found = connection.execute(READ).fetchall()
        return [json.dumps({"event_id": str(event_id), "payload": payload}) for event_id, payload in found]

    def arrived(self) -> Sequence[str]:
        return self.accepted()

    def cause(self, trouble: Trouble, position: int = 1) -> None:
        raise NotImplementedError(NO_SERVER)

    def recover(self) -> None:
        """Do nothing: there was no trouble."""

    def close(self) -> None:
        """Do nothing: each reading has a connection of its own."""
