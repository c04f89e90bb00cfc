"""What is written into the audit past Holdfast neither hides it from readers nor ends its sealing.

A selection is a JSON object, a seal is the next one, and the functions of the audit's triggers find its own tables,
whatever temporary tables a session has.
"""

import logging

from alembic import op
from sqlalchemy.exc import IntegrityError

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

#: All earlier code records objects, and makes the next seal.
serves_from = "0003"

FUNCTIONS = "audit_refuse_changes", "audit_queue_for_seal", "audit_add_rows"

IS_OBJECT = "ck_audit_entries_selection_is_object"

NEXT_SEAL = """
BEGIN
    IF NEW.number IS DISTINCT FROM (SELECT coalesce(max(number), 0)::numeric + 1 FROM audit_seals)
        OR array_ndims(NEW.entry_ids) IS DISTINCT FROM 1
        OR octet_length(NEW.digests) IS DISTINCT FROM 32 * cardinality(NEW.entry_ids)
        OR octet_length(NEW.hash) IS DISTINCT FROM 32
    THEN
        RAISE EXCEPTION 'seal % of the audit is refused: it is not the next one, or not whole', NEW.number
            USING ERRCODE = 'check_violation', HINT = 'Only Holdfast makes seals; docs/audit.md describes them.';
    END IF;
    RETURN NEW;
END
"""

#: Before and after the name of a function.
FINDING = (
    "DO $$ BEGIN EXECUTE (SELECT format('ALTER FUNCTION ",
    """() SET search_path = pg_catalog, %I, pg_temp', nspname)
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = 'audit_entries'::regclass
    ); END $$""",
)

WRONG_ENTRIES = (
    "Migration 0019: an entry of the audit has a selection that is no JSON object. Holdfast writes no such entry."
    " New ones are refused from now on, and bin/audit list says which ones can't be read in full."
)


def upgrade() -> None:
    op.execute(f"CREATE OR REPLACE FUNCTION audit_next_seal() RETURNS trigger LANGUAGE plpgsql AS $${NEXT_SEAL}$$")
    for name in (*FUNCTIONS, "audit_next_seal"):
        _find_own_tables(name)
    op.execute("""
        CREATE OR REPLACE TRIGGER audit_next_seal BEFORE INSERT ON audit_seals
        FOR EACH ROW EXECUTE FUNCTION audit_next_seal()
    """)
    with op.get_context().autocommit_block():
        pass  # which commits: each table is locked in a transaction of its own
    op.execute(f"""
        ALTER TABLE audit_entries DROP CONSTRAINT IF EXISTS {IS_OBJECT},
            ADD CONSTRAINT {IS_OBJECT} CHECK (jsonb_typeof(selection) = 'object') NOT VALID
    """)
    with op.get_context().autocommit_block():
        try:
            op.execute(f"ALTER TABLE audit_entries VALIDATE CONSTRAINT {IS_OBJECT}")
        except IntegrityError:
            # Nobody can change such an entry any more, so the constraint is for new ones.
            logging.getLogger(__name__).warning(WRONG_ENTRIES)


def _find_own_tables(function: str) -> None:
    """Let a function look in the schema of the audit, and for temporary tables last."""
    op.execute(f"{FINDING[0]}{function}{FINDING[1]}")


def downgrade() -> None:
    op.execute(f"ALTER TABLE audit_entries DROP CONSTRAINT IF EXISTS {IS_OBJECT}")
    with op.get_context().autocommit_block():
        pass
    op.execute("DROP TRIGGER IF EXISTS audit_next_seal ON audit_seals")
    op.execute("DROP FUNCTION IF EXISTS audit_next_seal")
    for name in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {name}() RESET search_path")
