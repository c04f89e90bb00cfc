"""The version of the schema: whether the database serves this code."""

from sqlalchemy import text

from domain.runtime.schema import SCHEMA_VERSION, is_migrated
from tests.support.builders import Db


def test_a_database_is_migrated_when_its_version_is_the_one_that_this_code_needs(db: Db) -> None:
    with db() as session:
        assert is_migrated(session)
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
        assert not is_migrated(session)
        session.execute(text("DROP TABLE alembic_version"))
        assert not is_migrated(session)
        session.rollback()
        assert SCHEMA_VERSION
