"""The invariants of the audit: it is only added to, and every entry is sealed."""

from sqlalchemy import Select, String, cast, func, select

from domain.access import audit
from domain.access.audit import audit_entries, audit_seals, audit_unsealed
from domain.invariants.invariant import Invariant, minutes

#: Maintenance seals every few seconds: whatever waits for longer than this, in minutes, waits for a worker.
SEALED_WITHIN_MINUTES = 2


def _lost() -> Select[str]:
    """The entries that no seal covers, and that do not wait for one either."""
    sealed = select(func.unnest(audit_seals.c.entry_ids).label("id")).subquery("sealed")
    return (
        select(cast(audit_entries.c.id, String))
        .outerjoin(sealed, sealed.c.id == audit_entries.c.id)
        .outerjoin(audit_unsealed, audit_unsealed.c.entry_id == audit_entries.c.id)
        .where(sealed.c.id.is_(None), audit_unsealed.c.entry_id.is_(None))
        .order_by(audit_entries.c.id)
    )


def _unsealed_for_long() -> Select[str]:
    limit = func.clock_timestamp() - minutes(SEALED_WITHIN_MINUTES)
    return (
        select(cast(audit_entries.c.id, String))
        .join_from(audit_unsealed, audit_entries, audit_entries.c.id == audit_unsealed.c.entry_id)
        .where(audit_entries.c.happened_at < limit)
        .order_by(audit_entries.c.id)
    )


INVARIANTS = (
    Invariant(
        "the audit is as it was sealed",
        audit.faults,
        "Somebody who owns the database has changed its past: nothing of Holdfast does. Keep the database as it is, and"
        " compare these entries with a backup; docs/audit.md says how.",
        misses="What was changed before it was sealed, and a chain that was made anew from some seal on: for that, keep"
        " the last hash elsewhere, and run bin/audit verify --hash HASH.",
    ),
    Invariant(
        "every entry of the audit is sealed, or waits to be",
        _lost(),
        "These are ids of the table audit_entries. The newest seals, or entries of audit_unsealed, were deleted:"
        " docs/audit.md says how to find out which.",
        misses="Entries that were deleted together with the newest seals.",
    ),
    Invariant(
        f"no entry of the audit has waited for its seal for {SEALED_WITHIN_MINUTES} minutes",
        _unsealed_for_long(),
        "Nothing is lost, but a change of these entries would not show yet. Start bin/worker and bin/scheduler, or run"
        " bin/process-outbox or bin/prune: they seal what waits.",
        misses="Entries whose times were changed while they waited.",
    ),
    Invariant(
        "the triggers refuse every change of the audit",
        audit.MISSING,
        "Whoever may write to these tables can change or delete what is there, or end the sealing, until the triggers"
        " of migrations 0017 and 0019 are made anew: docs/audit.md has them. Then ask who took them away.",
        misses="Triggers that were switched off for a while, and what the owner of the tables and superusers may do.",
    ),
)
