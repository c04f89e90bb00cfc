"""Changing reservations: the only way there is, for every endpoint, step and maintenance job."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, any_, bindparam, cast, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain import items, outbox
from domain.calendars import occupancies
from domain.calendars.occupancies import Shorter
from domain.items import Item
from domain.outbox import Event, Routes
from domain.providers import slot_of
from domain.reservations import events, outside
from domain.reservations.lifecycle import FREEING, MAX_HOLD, RELEASING, Kind, Status, allows
from domain.reservations.table import Reservation, history, read, reservation_lines, reservations, units_of
from domain.reservations.taken import taken_by
from domain.runtime.database import arrays, copy, is_given, lists, now
from domain.runtime.errors import HoldExpired, HoldTooLong, Refusal, WrongStatus

#: Who makes a change that nobody asked for.
SYSTEM = "system"

NOT_CONFIRMED = "the hold was not confirmed in time"

#: The column that notes when a status was reached.
REACHED = {
    Status.CONFIRMED: "confirmed_at",
    Status.CHECKED_IN: "checked_in_at",
    Status.COMPLETED: "completed_at",
    Status.CANCELLED: "cancelled_at",
    Status.REJECTED: "rejected_at",
}

#: The fields that say what of its items a reservation takes.
TAKING = frozenset({"starts_at", "ends_at", "quantity"})

#: The statuses of which the reservation itself keeps who ended it and why, beside its history.
KEEPS_REASON = frozenset({Status.CANCELLED, Status.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to become of a locked reservation: another status, new values of fields, or both.

    `reason` says why and `changed_by` who asked. `headers` tie its events to the request. If the fields say what it
    takes, `items` are the locked items of its lines, unless it only gives time of calendars back. The caller writes the
    fields `elsewhere`.
    """

    of: Reservation
    to: Status | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    changed_by: str = SYSTEM
    headers: Mapping[str, str] = field(default_factory=dict)
    items: Sequence[Item] = ()
    elsewhere: Sequence[str] = ()

    @property
    def kind(self) -> Kind:
        """What the history calls it."""
        if self.to is not None:
            return Kind.STATUS
        return Kind.EXTENDED if "expires_at" in self.fields else Kind.CHANGED


def lock(session: Session, ids: Collection[UUID]) -> Sequence[Reservation]:
    """Lock these reservations until the transaction ends, in order of id. Unknown ones are left out."""
    return [Reservation.of(row) for row in session.execute(LOCK, {"ids": list(ids)})]


#: Locks reservations, as `lock` does.
LOCK = (
    read.where(is_given(reservations.c.id)).order_by(reservations.c.id).with_for_update(of=reservations, key_share=True)
)


def transition(
    session: Session, changes: Sequence[Change], routes: Routes, moment: datetime | None = None
) -> Sequence[Reservation | Refusal]:
    """Change reservations that the caller has locked. Return a result for each.

    An overdue hold becomes EXPIRED instead, whatever was asked, and its result is HoldExpired: commit, and only then
    raise it. The result is the same if it is EXPIRED already. Any other refusal changes nothing. Pass all changes of
    a transaction in one call: it locks their items in order. `moment` is the database's time since the locks, if the
    caller knows it.
    """
    if not changes:
        return []
    moment = moment or now(session)
    decided = [_decide(one, moment) for one in changes]
    _write(session, [one for one in decided if isinstance(one, _Move)], moment, routes)
    return [_answer(one, result) for one, result in zip(changes, decided, strict=True)]


@dataclass(frozen=True, slots=True)
class _Move:
    change: Change
    after: Reservation

    @property
    def changes_hold(self) -> bool:
        return self.after.held_until != self.change.of.held_until

    @property
    def only_gives_back(self) -> bool:
        """Whether it takes less time, or fewer units of it, than it did, and nothing else."""
        return not self.change.items and not self.change.fields.keys().isdisjoint(TAKING)


def _decide(asked: Change, moment: datetime) -> _Move | Refusal:
    """Return the move that a change leads to, or why it is refused."""
    if asked.to is not Status.EXPIRED and is_overdue(asked.of, moment):
        asked = Change(of=asked.of, to=Status.EXPIRED, reason=NOT_CONFIRMED, headers=asked.headers)
    return _refuse(asked) or _Move(asked, _after(asked, moment))


def _refuse(asked: Change) -> Refusal | None:
    one = asked.of
    if one.status is Status.EXPIRED and asked.to is not Status.EXPIRED:
        return _expired(one)
    if not allows(one.status, asked.to, [*asked.fields, *asked.elsewhere]):
        return WrongStatus(one.status, asked.to)
    latest = one.created_at + MAX_HOLD
    if "expires_at" in asked.fields and asked.fields["expires_at"] > latest:
        return HoldTooLong(one.id, latest)
    return None


def _expired(one: Reservation) -> HoldExpired:
    assert one.expires_at is not None, "only a hold expires"
    return HoldExpired(one.id, one.expires_at)


def _after(asked: Change, moment: datetime) -> Reservation:
    values = {"version": asked.of.version + 1, **_reached(asked.to, moment), **asked.fields}
    if asked.to in KEEPS_REASON:
        values |= {"cancellation_reason": asked.reason, "cancelled_by": asked.changed_by}
    return replace(asked.of, **values)


def _reached(to: Status | None, moment: datetime) -> dict[str, Any]:
    """Return what a change at that moment to this status, or to none, says of it."""
    values: dict[str, Any] = {"updated_at": moment}
    if to is not None:
        values["status"] = to
    if to in REACHED:
        values[REACHED[to]] = moment
    return values


def is_overdue(reservation: Reservation, moment: datetime) -> bool:
    """Return whether a reservation is a hold that should have expired by that moment."""
    expires_at = reservation.expires_at
    return reservation.status is Status.PENDING and expires_at is not None and expires_at <= moment


def _answer(asked: Change, decided: _Move | Refusal) -> Reservation | Refusal:
    if isinstance(decided, Refusal):
        return decided
    has_expired = decided.after.status is Status.EXPIRED and asked.to is not Status.EXPIRED
    return _expired(decided.after) if has_expired else decided.after


def _write(session: Session, moves: Sequence[_Move], moment: datetime, routes: Routes) -> None:
    if not moves:
        return
    alike: dict[tuple[Status | None, tuple[str, ...]], list[_Move]] = defaultdict(list)
    for move in moves:
        alike[move.change.to, tuple(move.change.fields)].append(move)
    for (to, names), some in alike.items():
        _rewrite(session, to, names, some, moment)
    _rewrite_lines(session, moves)
    copy(session, history, _HISTORY_COLUMNS, map(_history, moves))
    asked = _outside(session, moves, routes)
    outbox.record(session, (event for move in moves for event in _events(move)), routes)
    outbox.record(session, [*asked, *_of_slots(session, moves, routes)], routes)
    _rewrite_time(session, moves)
    _move_units(session, moves)


def _outside(session: Session, moves: Sequence[_Move], routes: Routes) -> Sequence[Event]:
    """Return the events that ask services to undo what they did for bookings, or about other terms of them."""
    of_bookings = [move for move in moves if move.after.booking_reference]
    over = [(move.after, move.change.headers) for move in of_bookings if move.after.status in FREEING]
    renewed = [
        (move.change.of, move.after, move.change.headers)
        for move in of_bookings
        if move.after.status not in FREEING and not move.change.fields.keys().isdisjoint(TAKING)
    ]
    return [*outside.undo(session, over), *outside.renew(session, renewed, routes)]


def _of_slots(session: Session, moves: Sequence[_Move], routes: Routes) -> Sequence[Event]:
    """Return the events of the slot contract. Without a destination that wants them, no slot is looked up."""
    if not any(map(routes.wanting, events.SLOT_EVENT.values())):
        return ()
    may_be = [move for move in moves if move.change.to and move.after.provider and not move.after.further_lines]
    found = items.named(session, [move.after.item_id for move in may_be]) if may_be else ()
    slots = {one.id: slot_of(one) for one in found}
    return [
        event
        for move in may_be
        if (slot := slots.get(move.after.item_id))
        for event in events.of_slot(move.after, slot, move.change.reason, move.change.headers)
    ]


def _events(move: _Move) -> Iterator[Event]:
    change = move.change
    if change.to is not None:
        yield from events.of_status(move.after, change.of.status, change.reason, change.headers)
    yield from events.of_fields(move.after, change.of, [*change.fields, *change.elsewhere], change.headers)


def _rewrite(
    session: Session, to: Status | None, names: Sequence[str], moves: Sequence[_Move], moment: datetime
) -> None:
    """Write one new status, or none, and the fields of these names into reservations."""
    columns = {name: reservations.c[name].type for name in names}
    changed = arrays("changed", id=Uuid, reason=Text, changed_by=Text, **columns)
    values = {
        "version": reservations.c.version + 1,
        **_reached(to, moment),
        **{name: changed.c[name] for name in names},
    }
    if to in KEEPS_REASON:
        values |= {"cancellation_reason": changed.c.reason, "cancelled_by": changed.c.changed_by}
    given = lists(
        changed,
        id=[move.after.id for move in moves],
        reason=[move.change.reason for move in moves],
        changed_by=[move.change.changed_by for move in moves],
        **{name: [move.change.fields[name] for move in moves] for name in names},
    )
    session.execute(update(reservations).where(reservations.c.id == changed.c.id).values(values), given)


def _rewrite_lines(session: Session, moves: Sequence[_Move]) -> None:
    """Write into the further lines what they repeat of their reservations: until when stock is held, and the period."""
    until: dict[datetime | None, list[UUID]] = defaultdict(list)
    for move in moves:
        if move.after.further_lines and not move.after.period and move.changes_hold:
            until[move.after.held_until].append(move.after.id)
    for held_until, ids in until.items():
        session.execute(_HOLD_LINES, {"ids": ids, "until": held_until})
    for move in moves:
        if move.after.further_lines and move.after.period != move.change.of.period:
            session.execute(
                _MOVE_LINES, {"of": move.after.id, "start": move.after.starts_at, "end": move.after.ends_at}
            )


_ids = cast(bindparam("ids"), ARRAY(Uuid))
_HOLD_LINES = (
    update(reservation_lines)
    .values(held_until=bindparam("until", type_=reservation_lines.c.held_until.type))
    .where(reservation_lines.c.reservation_id == any_(_ids))
)
_MOVE_LINES = (
    update(reservation_lines)
    .values(
        starts_at=bindparam("start", type_=reservation_lines.c.starts_at.type),
        ends_at=bindparam("end", type_=reservation_lines.c.ends_at.type),
    )
    .where(reservation_lines.c.reservation_id == bindparam("of", type_=Uuid))
)
_HISTORY_COLUMNS = ("reservation_id", "from_status", "to_status", "changed_by", "reason", "kind", "details")


def _history(move: _Move) -> tuple[Any, ...]:
    change, after = move.change, move.after
    return after.id, change.of.status, after.status, change.changed_by, change.reason, change.kind, _details(change)


def _details(change: Change) -> str | None:
    """Return the fields of a change with their former and their new values, as JSON."""
    if not change.fields and not change.elsewhere:
        return None
    details = {name: {"from": getattr(change.of, name), "to": value} for name, value in change.fields.items()}
    details |= {name: {} for name in change.elsewhere}
    return json.dumps(details, default=datetime.isoformat)


def _rewrite_time(session: Session, moves: Sequence[_Move]) -> None:
    """Free the time that reservations of calendars no longer take, and take what they take instead."""
    timed = [move for move in moves if move.after.starts_at is not None]
    freed = [move.after.id for move in timed if move.after.status in FREEING or move.change.items]
    occupancies.give_back(session, freed)
    taken = [one for move in timed if move.change.items for one in taken_by(move.after, move.change.items)]
    if taken:
        session.execute(*occupancies.take_query(taken))
    occupancies.shorten(session, [_shorter(move) for move in timed if move.only_gives_back])
    kept = [move.after for move in timed if move.changes_hold and move.after.status not in FREEING]
    occupancies.hold_until(session, {one.id: one.held_until for one in kept})


def _shorter(move: _Move) -> Shorter:
    before, after = move.change.of.period, move.after.period
    assert before and after, "it is of calendars"
    fewer = move.change.of.quantity - move.after.quantity
    return Shorter(move.after.id, after.start - before.start, before.end - after.end, fewer)


def _move_units(session: Session, moves: Sequence[_Move]) -> None:
    """Give the units of stock back that reservations no longer have. Reservations are always locked before items."""
    released = units_of(move.after for move in moves if move.after.status in RELEASING)
    if released:
        items.lock(session, released)
    changed = [(move.change.of, move.after) for move in moves if move.change.items and move.after.starts_at is None]
    quantities = Counter(released)
    for before, after in changed:
        quantities[after.item_id] += before.quantity - after.quantity
    if quantities:
        items.move(session, quantities)
