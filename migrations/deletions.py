"""What a way back deletes: the tables and columns that its downgrades drop, and how many rows have something there.

The downgrades themselves say it: they are written as SQL, and not executed. So no migration has to declare what it
deletes. `tests/migrations` compares that with what the catalogue then lacks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import NamedTuple

from alembic import command as alembic
from alembic.config import Config
from sqlalchemy import Connection, TextClause, func, literal, select, table, text

#: Rows are counted up to this number.
MAX_COUNTED = 100_000


class Dropped(NamedTuple):
    """A table, or a column of a table, by its present name."""

    table: str
    column: str | None = None

    def __str__(self) -> str:
        return self.table if self.column is None else f"{self.table}.{self.column}"


def dropped(config: Config, current: str, target: str) -> Sequence[Dropped]:
    """Return what the downgrades between two revisions drop. Raises CommandError if there is no such way back."""
    config.output_buffer = StringIO()
    alembic.downgrade(config, f"{current}:{target}", sql=True)
    # Alembic would drop its own table on the way to base only if this SQL were executed.
    found = [one for one in _dropped(config.output_buffer.getvalue()) if one.table != "alembic_version"]
    tables = {one.table for one in found if one.column is None}
    return [one for one in found if one.column is None or one.table not in tables]


def _dropped(script: str) -> Iterator[Dropped]:
    present: dict[Dropped, str] = {}
    for statement in script.split(";"):
        yield from (Dropped(name) for name in _DROP_TABLE.findall(statement))
        for name, changes in _ALTER_TABLE.findall(statement):
            # What is dropped under an earlier name still has its later one.
            for later, earlier in _RENAME_COLUMN.findall(changes):
                present[Dropped(name, earlier)] = present.get(Dropped(name, later), later)
            for column in _DROP_COLUMN.findall(changes):
                yield Dropped(name, present.get(Dropped(name, column), column))


_DROP_TABLE = re.compile(r"\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(\w+)", re.IGNORECASE)
_ALTER_TABLE = re.compile(r"\bALTER\s+TABLE\s+(\w+)(.*)", re.IGNORECASE | re.DOTALL)
_RENAME_COLUMN = re.compile(r"\bRENAME\s+COLUMN\s+(\w+)\s+TO\s+(\w+)", re.IGNORECASE)
_DROP_COLUMN = re.compile(r"\bDROP\s+COLUMN\s+(?:IF\s+EXISTS\s+)?(\w+)", re.IGNORECASE)


def count(connection: Connection, those: Sequence[Dropped]) -> Mapping[Dropped, int]:
    """Return how many rows have something in them, up to MAX_COUNTED, for those that have any.

    The default of a column is nothing. What is missing already, after an interrupted downgrade, is left out.
    """
    counted = {one: _count(connection, one) for one in those}
    return {one: number for one, number in counted.items() if number}


def _count(connection: Connection, one: Dropped) -> int:
    defaults = {column.name: column.default for column in connection.execute(_DEFAULTS, {"table": one.table})}
    if not defaults or (one.column is not None and one.column not in defaults):
        return 0
    some = select(literal(1).label("one")).select_from(table(one.table)).limit(MAX_COUNTED)
    if one.column is not None:
        some = some.where(_has_value(one.column, defaults[one.column]))
    number: int = connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
    return number


def _has_value(column: str, default: str | None) -> TextClause:
    # Not every type can be compared, but every type has null.
    return text(f"{column} IS NOT NULL" if default is None else f"{column} IS DISTINCT FROM {default}")


_DEFAULTS = text("""
    SELECT attname AS name, pg_get_expr(adbin, adrelid) AS "default"
    FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
""")
