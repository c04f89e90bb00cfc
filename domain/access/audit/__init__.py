"""The audit: who did what, and why. It is only ever added to, and sealed so that a later change of it shows."""

from domain.access.audit.entries import WHO_LENGTH, WHY_LENGTH, AuditEntry, Operation, record
from domain.access.audit.guards import MISSING
from domain.access.audit.queries import Filter, RecordedEntry, find, readable
from domain.access.audit.seals import Seal, last_seal, seal
from domain.access.audit.table import audit_entries, audit_seals, audit_unsealed
from domain.access.audit.verification import Verification, faults, verify

__all__ = [
    "MISSING",
    "WHO_LENGTH",
    "WHY_LENGTH",
    "AuditEntry",
    "Filter",
    "Operation",
    "RecordedEntry",
    "Seal",
    "Verification",
    "audit_entries",
    "audit_seals",
    "audit_unsealed",
    "faults",
    "find",
    "last_seal",
    "readable",
    "record",
    "seal",
    "verify",
]
