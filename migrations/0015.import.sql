-- What: events of an older system's log are recorded as events of a kind of their own, each once.
-- Locks on existing tables: none; the view audit.activity_by_principal is replaced.
-- Code of the previous release: runs on it, and reads no events of this kind: finish rolling out before importing.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- What was imported, for as long as the database lives: the events themselves may be archived. Digests, so that a row is short.
CREATE TABLE audit.imported (
  key      bytea PRIMARY KEY,                                       -- of the source's name and the event's id in it
  digest   bytea NOT NULL,                                          -- of all that was imported
  event_id uuid  NOT NULL,
  CONSTRAINT imported_key_is_digest CHECK (octet_length(key) = 32),
  CONSTRAINT imported_digest_is_digest CHECK (octet_length(digest) = 32)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.imported
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.imported ENABLE ALWAYS TRIGGER append_only;
GRANT SELECT ON audit.imported TO licet_auditor;

-- Records those events of a batch that were not recorded before. No authorization state changes, so there is no revision to wait
-- for. Joins are left to the index, also by a plan from the time when the table was small.
CREATE FUNCTION licet.apply_import_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
  SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
  status := 'done';
  touched := '{}';
  wait_for := rev - 1;
  WITH given AS MATERIALIZED (
    SELECT g.ordinality, decode(g.key, 'hex') AS key, decode(g.digest, 'hex') AS digest, g.principal, g.action, g.resource,
           g.capability_id, g.session_id, g.trace_id, g.metadata, i.digest AS earlier
    FROM ROWS FROM (jsonb_to_recordset(change -> 'events') AS (
      key text, digest text, principal text, action text, resource text, capability_id text, session_id text, trace_id text,
      metadata jsonb
    )) WITH ORDINALITY AS g
    LEFT JOIN audit.imported AS i ON i.key = decode(g.key, 'hex')
  ), fresh AS MATERIALIZED (
    SELECT given.*, audit.next_change_event_id() AS event_id FROM given WHERE given.earlier IS NULL
  ), remembered AS (
    INSERT INTO audit.imported (key, digest, event_id) SELECT f.key, f.digest, f.event_id FROM fresh AS f
  ), recorded AS (
    INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource, capability_id,
                              result, reason, policy_id, session_id, trace_id, revision, metadata)
    SELECT 1, f.event_id, at, change ->> 'kind', change ->> 'actor', f.principal, f.action, f.resource, f.capability_id,
           'done', '', '', f.session_id, f.trace_id, rev - 1, f.metadata
    FROM fresh AS f
  )
  SELECT jsonb_build_object(
           'recorded', count(*) FILTER (WHERE given.earlier IS NULL),
           'already_recorded', count(*) FILTER (WHERE given.earlier = given.digest),
           'conflicting', coalesce(
             jsonb_agg(given.ordinality - 1 ORDER BY given.ordinality) FILTER (WHERE given.earlier <> given.digest), '[]'))
  INTO outcome
  FROM given;
END $$;

-- What a principal did elsewhere, long ago, is no activity of today.
CREATE OR REPLACE VIEW audit.activity_by_principal WITH (security_invoker = true) AS
SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.principal,
       count(*) FILTER (WHERE e.result = 'allow') AS allowed, count(*) FILTER (WHERE e.result = 'deny') AS denied,
       count(*) FILTER (WHERE e.event_type <> 'decision') AS changes, max(e.occurred_at) AS latest
FROM audit.events AS e
WHERE e.principal <> '' AND e.event_type <> 'import.event'
GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC;

REVOKE ALL ON FUNCTION licet.apply_import_change(jsonb, bigint, timestamptz) FROM PUBLIC;
