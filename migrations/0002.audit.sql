-- What: the audit log: events partitioned by day, and how far each writer has shipped.
-- Locks on existing tables: none.
-- Code of the previous release: there is none.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE SCHEMA audit;
GRANT USAGE ON SCHEMA audit TO licet_server, licet_auditor;

-- The columns are the fields of the canonical leaf, in its order; see domain/audit_event.py.
-- There is no DEFAULT partition: it would make every newest-first query merge all partitions.
CREATE TABLE audit.events (
  v             smallint    NOT NULL CHECK (v = 1),
  event_id      uuid        NOT NULL,
  occurred_at   timestamptz NOT NULL,
  event_type    text        NOT NULL CHECK (event_type <> ''),
  actor         text        NOT NULL,
  principal     text        NOT NULL,
  action        text        NOT NULL,
  resource      text        NOT NULL,
  capability_id text        NOT NULL,
  result        text        NOT NULL CHECK (result IN ('allow', 'deny', 'done', 'refused')),
  reason        text        NOT NULL,
  policy_id     text        NOT NULL,
  session_id    text        NOT NULL,
  trace_id      text        NOT NULL,
  revision      bigint      NOT NULL,
  metadata      jsonb       NOT NULL CHECK (jsonb_typeof(metadata) = 'object'),
  PRIMARY KEY (event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX event_time_idx ON audit.events (occurred_at);
CREATE INDEX event_principal_idx ON audit.events (principal, occurred_at);
CREATE INDEX event_actor_idx ON audit.events (actor, occurred_at);
CREATE INDEX event_resource_idx ON audit.events (resource, occurred_at);
CREATE INDEX event_action_idx ON audit.events (action, occurred_at);
CREATE INDEX event_capability_idx ON audit.events (capability_id, occurred_at) WHERE capability_id <> '';
CREATE INDEX event_session_idx ON audit.events (session_id, occurred_at) WHERE session_id <> '';
CREATE INDEX event_trace_idx ON audit.events (trace_id, occurred_at) WHERE trace_id <> '';
CREATE INDEX event_policy_idx ON audit.events (policy_id, occurred_at) WHERE policy_id <> '';
CREATE INDEX event_type_idx ON audit.events (event_type, occurred_at) WHERE event_type <> 'decision';
CREATE INDEX event_result_idx ON audit.events (result, occurred_at) WHERE result <> 'allow';
CREATE INDEX event_reason_idx ON audit.events (reason, occurred_at) WHERE reason <> '';
CREATE INDEX event_metadata_idx ON audit.events USING gin (metadata jsonb_path_ops) WITH (gin_pending_list_limit = 1024);

CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'audit.% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.events
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.events ENABLE ALWAYS TRIGGER append_only;

-- Makes the partition of an instant's day (UTC) when it is missing and returns its name. The table is made first and
-- attached second, because that lets others read and write audit.events meanwhile.
CREATE FUNCTION audit.ensure_partition(at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
  day  date := (at AT TIME ZONE 'UTC')::date;
  name text := 'events_' || to_char(day, 'YYYYMMDD');
BEGIN
  IF to_regclass('audit.' || name) IS NOT NULL THEN
    RETURN name;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('audit.ensure_partition'));
  -- Looked for in the table: to_regclass() could answer from this session's cache, filled before the wait.
  IF NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relname = name AND c.relnamespace = 'audit'::regnamespace) THEN
    EXECUTE format('CREATE TABLE audit.%I (LIKE audit.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    -- Triggers of the parent do not fire for a statement on the partition itself.
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('ALTER TABLE audit.%I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE audit.events ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)',
                   name, day::timestamptz, (day + 1)::timestamptz);
    EXECUTE format('GRANT SELECT ON audit.%I TO licet_server, licet_auditor', name);
  END IF;
  RETURN name;
END $$;
REVOKE ALL ON FUNCTION audit.ensure_partition(timestamptz) FROM PUBLIC;

-- How far a writer has shipped. Moved in the transaction that stores the events, so that events whose COMMIT was
-- answered to nobody are not stored twice.
CREATE TABLE audit.writers (
  writer_id   bigint PRIMARY KEY CHECK (writer_id > 0),             -- 0 is the writer of events in transactions
  info        jsonb  NOT NULL DEFAULT '{}',
  shipped_seq bigint NOT NULL DEFAULT 0,
  closed_seq  bigint
);

-- Events written in the transaction of a change have ids of writer 0; a rollback leaves a gap.
CREATE SEQUENCE audit.change_event_seq;
CREATE FUNCTION audit.next_change_event_id() RETURNS uuid LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ('0000000000008000' || to_hex(nextval('audit.change_event_seq') | (-9223372036854775808)::bigint))::uuid
$$;
REVOKE ALL ON FUNCTION audit.next_change_event_id() FROM PUBLIC;

GRANT SELECT, INSERT ON audit.events TO licet_server;
GRANT SELECT, INSERT ON audit.writers TO licet_server;
GRANT UPDATE (shipped_seq, closed_seq) ON audit.writers TO licet_server;
GRANT EXECUTE ON FUNCTION audit.ensure_partition(timestamptz) TO licet_server;
GRANT SELECT ON audit.events, audit.writers TO licet_auditor;
