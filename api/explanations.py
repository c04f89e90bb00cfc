"""Refusals for want of free time: what is in the way, and what can be had instead."""

from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from api.bulkheads import Bulkhead
from domain import calendars
from domain.access import Principal
from domain.runtime import database_errors
from domain.runtime.errors import NotFree, Refusal, Unavailable

T = TypeVar("T")


async def explained(
    outcome: Awaitable[T | Refusal],
    bulkhead: Bulkhead,
    principal: Principal,
    *,
    is_whole: bool = True,
    but: UUID | None = None,
) -> T:
    """Return an outcome, or raise the refusal that it is. If time is not free, raise that with an explanation.

    This reads what the decision did not need, when its locks are gone. While too many ask, refusals are not explained.
    Alternatives are for one calendar, so there are none for a request that is not for one as a whole. What the
    reservation `but` has counts as free.
    """
    try:
        found = await outcome
        if isinstance(found, Refusal):
            raise found
        return found
    except NotFree as error:
        refused = error
    await add_explanation(refused, bulkhead, principal, is_whole=is_whole, but=but)
    raise refused


async def add_explanation(
    refused: NotFree, bulkhead: Bulkhead, principal: Principal, *, is_whole: bool = True, but: UUID | None = None
) -> None:
    """Explain a refusal, unless too many ask, or the database is in trouble: it is decided all the same."""
    try:
        explanation = await bulkhead.run(lambda session: calendars.explain(session, refused, but=but), principal)
    except Unavailable:
        return
    except SQLAlchemyError as error:
        if database_errors.trouble(error) is None:
            raise
        return
    refused.conflicts = explanation.conflicts
    refused.alternatives = explanation.alternatives if is_whole else []
