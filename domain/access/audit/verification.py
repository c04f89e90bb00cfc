"""Verifying the audit: whether every sealed entry, and every seal, is as it was when it was sealed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Row, Select, bindparam, case, cast, func, literal, or_, select
from sqlalchemy.orm import Session

from domain.access.audit.chain import BEGINNING, DIGEST_BYTES, digest_of, hash_of, microseconds
from domain.access.audit.seals import TEXTS
from domain.access.audit.table import audit_seals

#: Entries that are in memory at a time, a few megabytes, unless a seal alone has more.
ENTRIES_OF_PAGE = 10_000

#: Seals that are read at a time, if they have few entries.
SEALS_OF_PAGE = 1_000

#: The first few faults are kept; the others are counted.
KEPT = 20


@dataclass(slots=True)
class Progress:
    """How far the seals have been read: how many, their entries, the last one, and whether the hash `sought` was met.

    `before` has the hashes that the next seal may have been made with: that of the last one, and what it should be.
    """

    sought: str | None = None
    seals: int = 0
    entries: int = 0
    number: int = 0
    hash: bytes = BEGINNING
    before: Collection[bytes] = (BEGINNING,)
    is_met: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was verified: how much, the last hash, and the first few faults. `is_met` says whether the hash is there."""

    seals: int
    entries: int
    hash: str | None
    faults: Sequence[str]
    fault_count: int
    is_met: bool


def verify(session: Session, sought: str | None = None) -> Verification:
    """Verify all seals and their entries, page by page. `sought` is a hash that has to be in the chain."""
    progress, count = Progress(sought), 0
    kept: list[str] = []
    for fault in _faults(session, progress):
        count += 1
        if len(kept) < KEPT:
            kept.append(fault)
    return Verification(
        seals=progress.seals,
        entries=progress.entries,
        hash=progress.hash.hex() if progress.seals else None,
        faults=kept,
        fault_count=count,
        is_met=progress.is_met,
    )


def faults(session: Session) -> Iterator[str]:
    """Yield a few words for each entry and each seal that was changed or deleted, in the order of the seals."""
    return _faults(session, Progress())


def _faults(session: Session, progress: Progress) -> Iterator[str]:
    while page := session.execute(_PAGE, {"after": progress.number}).all():
        ids = [one for seal in page for one in seal.entry_ids]
        texts = {row.id: row.canonical for row in session.execute(TEXTS, {"ids": ids})}
        for seal in page:
            yield from _faults_of_seal(seal, progress)
            yield from _faults_of_entries(seal, texts)
            _advance(progress, seal)


def _faults_of_seal(seal: Row[Any], progress: Progress) -> Iterator[str]:
    missing = seal.number - progress.number - 1
    if missing:
        first, last = progress.number + 1, seal.number - 1
        yield f"seal {first} was deleted" if missing == 1 else f"seals {first} to {last} were deleted"
        return  # what its hash was made with is gone
    if seal.hash not in _made(seal, progress):
        yield f"seal {seal.number} was changed"


def _made(seal: Row[Any], progress: Progress) -> Sequence[bytes]:
    """Return the hashes that a seal may have: by the hash of the seal before, as it is and as it should be."""
    rest = seal.number, seal.microseconds, seal.entry_ids, seal.digests
    return [hash_of(before, *rest) for before in progress.before]


def _faults_of_entries(seal: Row[Any], texts: Mapping[int, str]) -> Iterator[str]:
    for place, entry_id in enumerate(seal.entry_ids):
        digest = seal.digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
        if entry_id not in texts:
            yield f"entry {entry_id} was deleted"
        elif digest_of(texts[entry_id]) != digest:
            yield f"entry {entry_id} was changed"


def _advance(progress: Progress, seal: Row[Any]) -> None:
    progress.seals += 1
    progress.entries += len(seal.entry_ids)
    progress.before = {seal.hash, *_made(seal, progress)}
    progress.number, progress.hash = seal.number, seal.hash
    progress.is_met |= seal.hash.hex() == progress.sought


# Somebody may have stored an array of arrays, which is no seal of anything: its hash shows that.
_NO_IDS = cast(literal("{}"), ARRAY(BigInteger))
_IS_LIST = func.array_ndims(audit_seals.c.entry_ids) == 1
_ENTRY_IDS = case((_IS_LIST, audit_seals.c.entry_ids), else_=_NO_IDS).label("entry_ids")


def page_of(entries: int) -> Select[Any]:
    """Return the query of the next seals that have no more entries together than these, or of one that has more."""
    by_number = audit_seals.c.number
    following = (
        select(
            audit_seals.c.number,
            _ENTRY_IDS,
            audit_seals.c.digests,
            audit_seals.c.hash,
            microseconds(audit_seals.c.sealed_at).label("microseconds"),
            func.sum(func.cardinality(audit_seals.c.entry_ids)).over(order_by=by_number).label("entries"),
            func.row_number().over(order_by=by_number).label("place"),
        )
        .where(by_number > bindparam("after"))
        .order_by(by_number)
        .limit(SEALS_OF_PAGE)
        .subquery("following")
    )
    fits = or_(following.c.entries <= entries, following.c.place == 1)
    return select(following).where(fits).order_by(following.c.number)


_PAGE = page_of(ENTRIES_OF_PAGE)
