"""The triggers of the audit: they refuse to change or delete what is in it, and seals that are not the next one.

One more has each entry sealed.
"""

from sqlalchemy import TextClause, text

#: The body of the function that refuses. Migration 0017 creates it.
REFUSAL = """
BEGIN
    RAISE EXCEPTION 'the audit is only added to: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'docs/audit.md says why, and who could do it all the same.';
END
"""

#: The body of the function that lets each new entry be sealed.
QUEUEING = """
BEGIN
    INSERT INTO audit_unsealed (entry_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
"""

#: The body of the function that refuses a seal which is not the next one, or not whole. Migration 0019 creates it.
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

#: Bits of a trigger's type, as PostgreSQL's catalogue has them.
_ROW, _BEFORE, _INSERT, _DELETE, _UPDATE, _TRUNCATE = 1, 2, 4, 8, 16, 32

_REFUSING = _BEFORE | _DELETE | _UPDATE | _TRUNCATE
_QUEUEING = _ROW | _INSERT
_FOLLOWING = _ROW | _BEFORE | _INSERT

#: The triggers that are missing, switched off, or not what the migrations have made. Their functions find the tables in
#: the schema of the audit: a temporary table of the same name, which anybody could make, takes nothing from it.
MISSING: TextClause = text("""
    SELECT concat(wanted.relation, ': ', wanted.name)
    FROM (
        VALUES ('audit_entries', 'audit_refuse_changes', CAST(:refusing AS int), '{A}', CAST(:refusal AS text)),
            ('audit_seals', 'audit_refuse_changes', :refusing, '{A}', :refusal),
            ('audit_entries', 'audit_queue_for_seal', :queueing, '{A,O}', :queue),
            ('audit_seals', 'audit_next_seal', :following, '{A,O}', :next)
    ) AS wanted (relation, name, type, enabled, body)
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger
            JOIN pg_proc ON pg_proc.oid = tgfoid
            JOIN pg_class ON pg_class.oid = tgrelid
            JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE tgrelid = to_regclass(wanted.relation) AND tgname = wanted.name AND tgtype = wanted.type
            AND tgenabled = ANY (CAST(wanted.enabled AS "char"[])) AND tgqual IS NULL AND tgattr = ''
            AND prosrc = wanted.body
            AND proconfig = ARRAY[format('search_path=pg_catalog, %I, pg_temp', nspname)]
    )
""").bindparams(
    refusing=_REFUSING, refusal=REFUSAL, queueing=_QUEUEING, queue=QUEUEING, following=_FOLLOWING, next=NEXT_SEAL
)
