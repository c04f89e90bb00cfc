"""An invariant: what must hold at any moment, in any database, as one query that finds what violates it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from sqlalchemy import ColumnElement, CompoundSelect, Select, TextClause, func
from sqlalchemy.orm import Session

#: The first few violations are named; the others are counted.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Invariant:
    """`violations` selects or yields a text for each violation. `advice` says what to do about them.

    `misses` says what is wrong as well and would not be found: a check that finds nothing shows no more than it checks.
    """

    title: str
    violations: Select[str] | CompoundSelect[str] | TextClause | Callable[[Session], Iterable[str]]
    advice: str = ""
    misses: str = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of checking an invariant: how many violations there are, and the first few of them."""

    title: str
    violations: int
    named: Sequence[str]
    advice: str = ""
    misses: str = ""


def check(session: Session, invariant: Invariant) -> Finding:
    """Look for violations. One query sees one moment, whatever else is going on."""
    found = find(session, invariant)
    named = list(islice(found, NAMED))
    return Finding(invariant.title, len(named) + sum(1 for _ in found), named, invariant.advice, invariant.misses)


def find(session: Session, invariant: Invariant) -> Iterator[str]:
    """Yield a text for each violation."""
    if callable(invariant.violations):
        return iter(invariant.violations(session))
    return iter(session.execute(invariant.violations).scalars())


def minutes(number: int) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, number)
