"""The audit is only added to, for everything that is audited, and it is sealed.

The entries of operators become those of the audit: their table gets another name, and nothing is copied. Under the
former name there is a view for processes of earlier code, until the deployment has ended. The number of rows that such
code adds to an entry becomes an entry of its own, of the same operation.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

#: Earlier code reads, inserts and updates the view.
serves_from = "0003"

INDEXES = {
    "ix_audit_entries_action_id": "(action, id)",
    "ix_audit_entries_who_id": "(who, id)",
    "ix_audit_entries_subject_id": "(subject, id) WHERE subject IS NOT NULL",
    "ix_audit_entries_happened_at": "(happened_at)",
}

REFUSAL = """
BEGIN
    RAISE EXCEPTION 'the audit is only added to: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'docs/audit.md says why, and who could do it all the same.';
END
"""

QUEUEING = """
BEGIN
    INSERT INTO audit_unsealed (entry_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
"""

# An update of the view by earlier code, which only adds to the rows.
ADDING = """
BEGIN
    IF (NEW.id, NEW.action, NEW.who, NEW.why, NEW.selection, NEW.happened_at)
        IS DISTINCT FROM (OLD.id, OLD.action, OLD.who, OLD.why, OLD.selection, OLD.happened_at)
    THEN
        RAISE EXCEPTION 'the audit is only added to' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO audit_entries (action, who, why, selection, rows, operation_id)
    VALUES (OLD.action, OLD.who, OLD.why, OLD.selection, NEW.rows - OLD.rows, OLD.id);
    RETURN NEW;
END
"""

RENAMING = """
    DO $$
    DECLARE found text;
    BEGIN
        FOR found IN SELECT conname FROM pg_constraint WHERE conrelid = 'audit_entries'::regclass LOOP
"""


def upgrade() -> None:
    _queue_new_entries()
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON outbox_operations {definition}")
    # Entries that are recorded from now on are queued by the trigger.
    op.execute("INSERT INTO audit_unsealed SELECT id FROM outbox_operations ON CONFLICT DO NOTHING")
    with op.get_context().autocommit_block():
        pass  # which commits: a table must not be locked while all of it is read
    _rename()
    _refuse_changes("audit_entries")
    op.execute("""
        CREATE TABLE audit_seals (
            number BIGINT NOT NULL,
            entry_ids BIGINT[] NOT NULL,
            digests BYTEA NOT NULL,
            sealed_at timestamptz NOT NULL,
            hash BYTEA NOT NULL,
            CONSTRAINT pk_audit_seals PRIMARY KEY (number)
        )
    """)
    _refuse_changes("audit_seals")


def _queue_new_entries() -> None:
    """Have entries queued for a seal from now on. It can be run again, as can all that precedes the new name."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS audit_unsealed (
            entry_id BIGINT NOT NULL,
            CONSTRAINT pk_audit_unsealed PRIMARY KEY (entry_id)
        ) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000)
    """)
    op.execute(
        "ALTER TABLE outbox_operations"
        " ADD COLUMN IF NOT EXISTS subject VARCHAR(255), ADD COLUMN IF NOT EXISTS operation_id BIGINT"
    )
    _create_function("audit_queue_for_seal", QUEUEING)
    op.execute("""
        CREATE OR REPLACE TRIGGER audit_queue_for_seal AFTER INSERT ON outbox_operations
        FOR EACH ROW EXECUTE FUNCTION audit_queue_for_seal()
    """)


def _rename() -> None:
    op.execute("ALTER TABLE outbox_operations RENAME TO audit_entries")
    _rename_constraints("outbox_operations", "audit_entries")
    op.execute("ALTER SEQUENCE outbox_operations_id_seq RENAME TO audit_entries_id_seq")
    op.execute("""
        CREATE VIEW outbox_operations AS
        SELECT id, action, who, why, selection, rows, happened_at FROM audit_entries
    """)
    _create_function("audit_add_rows", ADDING)
    op.execute("""
        CREATE TRIGGER audit_add_rows INSTEAD OF UPDATE ON outbox_operations
        FOR EACH ROW EXECUTE FUNCTION audit_add_rows()
    """)


def _rename_constraints(former: str, name: str) -> None:
    """Put a name in place of a former one in the names of all constraints, those that PostgreSQL gives included."""
    op.execute(
        RENAMING
        + f"""
            EXECUTE format('ALTER TABLE audit_entries RENAME CONSTRAINT %I TO %I',
                found, replace(found, '{former}', '{name}'));
        END LOOP;
        END $$
        """
    )


def _refuse_changes(table: str) -> None:
    """Refuse every change of a table but new rows: to everybody, in replication and in a restore as well."""
    _create_function("audit_refuse_changes", REFUSAL)
    op.execute(f"""
        CREATE TRIGGER audit_refuse_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_changes()
    """)
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_refuse_changes")


def _create_function(name: str, body: str) -> None:
    op.execute(f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")


def downgrade() -> None:
    """Keep all entries, without their subjects, and give the seals up."""
    op.execute("DROP TRIGGER IF EXISTS audit_queue_for_seal ON audit_entries")
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute("DROP TABLE IF EXISTS audit_unsealed")
    with op.get_context().autocommit_block():
        pass  # which commits: each table is locked in a transaction of its own
    op.execute("DROP TABLE IF EXISTS audit_seals")
    with op.get_context().autocommit_block():
        pass
    op.execute("DROP VIEW IF EXISTS outbox_operations")
    op.execute("DROP TRIGGER IF EXISTS audit_refuse_changes ON audit_entries")
    op.execute("ALTER TABLE audit_entries DROP COLUMN subject, DROP COLUMN operation_id")
    _rename_constraints("audit_entries", "outbox_operations")
    op.execute("ALTER SEQUENCE audit_entries_id_seq RENAME TO outbox_operations_id_seq")
    op.execute("ALTER TABLE audit_entries RENAME TO outbox_operations")
    op.execute("DROP FUNCTION IF EXISTS audit_queue_for_seal, audit_add_rows, audit_refuse_changes")
