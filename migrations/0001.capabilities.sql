-- What: the roles, and the tables of authorization state: capabilities, changes, requests, replicas, meta.
-- Locks on existing tables: none.
-- Code of the previous release: there is none.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- Roles belong to the cluster and may exist already, made for another database of the same cluster.
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['licet_server', 'licet_auditor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- another database's migration was faster
      END;
    END IF;
    IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO %I', name, current_user);
    END IF;
  END LOOP;
END $$;

CREATE SCHEMA licet;
GRANT USAGE ON SCHEMA licet TO licet_server, licet_auditor;

-- What has been applied, with the checksum of the file: a server refuses a schema that it does not know.
CREATE TABLE licet.migrations (
  id         text PRIMARY KEY,
  sha256     text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE licet.meta (
  only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  trimmed_through bigint NOT NULL DEFAULT 0,                        -- changes up to this revision may be gone
  epoch           uuid   NOT NULL DEFAULT gen_random_uuid(),        -- changes with a restore only
  -- Signs page tokens, so that every replica takes every other's. gen_random_uuid() is cryptographically strong.
  page_token_key  bytea  NOT NULL DEFAULT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
);
INSERT INTO licet.meta DEFAULT VALUES;

CREATE TABLE licet.changes (
  revision   bigint   PRIMARY KEY,
  kind       smallint NOT NULL CHECK (kind IN (0, 1)),              -- 0: these principals, 1: everything
  principals text[]   NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO licet.changes (revision, kind, principals) VALUES (0, 1, '{}');  -- max(revision) is never NULL

CREATE TABLE licet.capabilities (
  id               uuid PRIMARY KEY,
  parent_id        uuid REFERENCES licet.capabilities,
  principal        text NOT NULL,
  actions          text[] NOT NULL,
  resource         text NOT NULL,
  granted_by       text NOT NULL,
  granted_at       timestamptz NOT NULL,
  not_before       timestamptz NOT NULL DEFAULT '-infinity',
  expires_at       timestamptz NOT NULL DEFAULT 'infinity',
  delegation_depth smallint NOT NULL,
  condition        text NOT NULL DEFAULT '',
  session_id       text NOT NULL DEFAULT '',
  metadata         jsonb NOT NULL DEFAULT '{}',
  granted_revision bigint NOT NULL,
  granted_event_id uuid NOT NULL,
  ended_revision   bigint,
  ended_event_id   uuid,
  ended_at         timestamptz,
  ended_by         text,
  end_reason       text,
  end_cause        text,
  CONSTRAINT capability_principal_is_name CHECK (principal ~ '^[a-z][a-z0-9_-]{0,31}:.' AND octet_length(principal) <= 256),
  CONSTRAINT capability_resource_is_name CHECK (resource ~ '^[a-z][a-z0-9_-]{0,31}:.' AND octet_length(resource) <= 1024),
  CONSTRAINT capability_has_actions CHECK (cardinality(actions) BETWEEN 1 AND 32 AND array_position(actions, NULL) IS NULL),
  CONSTRAINT capability_time_is_not_empty CHECK (not_before < expires_at),
  CONSTRAINT capability_depth_in_range CHECK (delegation_depth BETWEEN 0 AND 64),
  CONSTRAINT capability_metadata_is_object CHECK (jsonb_typeof(metadata) = 'object'),
  CONSTRAINT capability_is_not_its_own_parent CHECK (parent_id <> id),
  CONSTRAINT capability_end_is_whole CHECK (
    num_nulls(ended_revision, ended_event_id, ended_at, ended_by, end_reason, end_cause) IN (0, 6)),
  CONSTRAINT capability_end_cause_is_known CHECK (end_cause IN ('REVOKED', 'CASCADE', 'EXPIRED', 'SESSION_ENDED')),
  CONSTRAINT capability_ends_after_grant CHECK (ended_revision >= granted_revision)
);
-- A miss reads the living by their expiry, and the latest ended ones to say why a request is denied.
CREATE INDEX capability_living_idx ON licet.capabilities (principal, expires_at) WHERE ended_revision IS NULL;
CREATE INDEX capability_ended_idx ON licet.capabilities (principal, ended_at) WHERE ended_revision IS NOT NULL;
CREATE INDEX capability_parent_idx ON licet.capabilities (parent_id, id);
-- Lists, page by page in the order of ids.
CREATE INDEX capability_principal_idx ON licet.capabilities (principal, id);
CREATE INDEX capability_granted_by_idx ON licet.capabilities (granted_by, id);
CREATE INDEX capability_session_idx ON licet.capabilities (session_id, id) WHERE session_id <> '';
-- Patterns inside a pattern share its literal beginning.
CREATE INDEX capability_resource_idx ON licet.capabilities (resource text_pattern_ops);

-- Nothing but the end of a capability changes, and it ends once. A delegation is inside its parent: the containment
-- of resources is checked by the server, everything that SQL can say is checked here as well.
CREATE FUNCTION licet.guard_capability() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parent licet.capabilities;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'capabilities are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF OLD.ended_revision IS NOT NULL THEN
      RAISE EXCEPTION 'capability % has ended', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (OLD.id, OLD.parent_id, OLD.principal, OLD.actions, OLD.resource, OLD.granted_by, OLD.granted_at, OLD.not_before,
        OLD.expires_at, OLD.delegation_depth, OLD.condition, OLD.session_id, OLD.metadata, OLD.granted_revision, OLD.granted_event_id)
       IS DISTINCT FROM
       (NEW.id, NEW.parent_id, NEW.principal, NEW.actions, NEW.resource, NEW.granted_by, NEW.granted_at, NEW.not_before,
        NEW.expires_at, NEW.delegation_depth, NEW.condition, NEW.session_id, NEW.metadata, NEW.granted_revision, NEW.granted_event_id)
    THEN
      RAISE EXCEPTION 'only the end of a capability changes' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.parent_id IS NOT NULL THEN
    SELECT * INTO STRICT parent FROM licet.capabilities AS c WHERE c.id = NEW.parent_id;
    IF parent.ended_revision IS NOT NULL
       OR NEW.delegation_depth >= parent.delegation_depth
       OR NEW.expires_at > parent.expires_at
       OR NEW.not_before < parent.not_before
       OR NOT (NEW.actions <@ parent.actions OR parent.actions @> '{*}')
    THEN
      RAISE EXCEPTION 'a delegation is inside its parent' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_capability BEFORE INSERT OR UPDATE OR DELETE ON licet.capabilities
  FOR EACH ROW EXECUTE FUNCTION licet.guard_capability();

-- Idempotency keys: what a request did, and the revision for which a repetition has to wait.
CREATE TABLE licet.requests (
  request_id text PRIMARY KEY CHECK (octet_length(request_id) BETWEEN 1 AND 128),
  digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
  revision   bigint NOT NULL,
  status     text NOT NULL,
  outcome    jsonb NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who answers from memory, and up to which revision each has applied the changes.
CREATE TABLE licet.replicas (
  incarnation   uuid PRIMARY KEY,                                   -- fresh with each registration, never reused
  beat          bigint NOT NULL DEFAULT 0,
  applied       bigint NOT NULL,
  host          text NOT NULL DEFAULT '',
  lease_seconds double precision NOT NULL CHECK (lease_seconds > 0),  -- how long it uses its memory after a renewal
  started       timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

GRANT SELECT ON licet.migrations, licet.meta, licet.changes, licet.capabilities, licet.requests, licet.replicas TO licet_server;
GRANT SELECT ON licet.migrations, licet.changes, licet.capabilities TO licet_auditor;
GRANT INSERT, DELETE, UPDATE (beat, applied) ON licet.replicas TO licet_server;
