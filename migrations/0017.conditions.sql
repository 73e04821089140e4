-- What: conditions of capabilities; a child has those of its ancestors as well.
-- Locks on existing tables: licet.capabilities, for the moment in which a column is added.
-- Code of the previous release: refuses this schema, and can no longer read what is held: it would take a condition for none.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- All that must hold: the parent's, and then its own, the root's first. It never changes, because no condition does.
ALTER TABLE licet.capabilities ADD COLUMN conditions text[] NOT NULL DEFAULT '{}';

-- As in 0007, and fills in the conditions: whoever inserts a capability, it has those of its parent.
CREATE OR REPLACE FUNCTION licet.guard_capability() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parent licet.capabilities;
BEGIN
  IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
    RAISE EXCEPTION 'capabilities are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF OLD.ended_revision IS NOT NULL THEN
      RAISE EXCEPTION 'capability % has ended', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (OLD.id, OLD.parent_id, OLD.principal, OLD.actions, OLD.resource, OLD.granted_by, OLD.granted_at, OLD.not_before,
        OLD.expires_at, OLD.delegation_depth, OLD.condition, OLD.conditions, OLD.session_id, OLD.metadata,
        OLD.granted_revision, OLD.granted_event_id)
       IS DISTINCT FROM
       (NEW.id, NEW.parent_id, NEW.principal, NEW.actions, NEW.resource, NEW.granted_by, NEW.granted_at, NEW.not_before,
        NEW.expires_at, NEW.delegation_depth, NEW.condition, NEW.conditions, NEW.session_id, NEW.metadata,
        NEW.granted_revision, NEW.granted_event_id)
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
  NEW.conditions := coalesce(parent.conditions, '{}') || CASE WHEN NEW.condition <> '' THEN ARRAY[NEW.condition] ELSE '{}' END;
  IF cardinality(NEW.conditions) > 16 OR octet_length(NEW.condition) > 2048 THEN
    RAISE EXCEPTION 'a capability has at most 16 conditions of 2048 bytes' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;

-- As in 0005, and takes a condition.
CREATE OR REPLACE FUNCTION licet.apply_grants(mutations jsonb, rev bigint, at timestamptz)
RETURNS TABLE (ordinal integer, status text, revision bigint, outcome jsonb, principal text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
  SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH given AS (
    SELECT * FROM ROWS FROM (jsonb_to_recordset(mutations) AS (
      kind text, request_id text, digest text, id uuid, parent_id uuid, principal text, actions text[], resource text,
      not_before timestamptz, expires_at timestamptz, delegation_depth smallint, condition text, session_id text, metadata jsonb,
      actor text, trace_id text, facts jsonb
    )) WITH ORDINALITY
  ), judged AS MATERIALIZED (
    SELECT given.*, earlier.request_id IS NULL AS is_new, earlier.revision AS earlier_revision,
           audit.next_change_event_id() AS event_id,
           CASE
             WHEN earlier.digest <> decode(given.digest, 'hex') THEN 'REQUEST_ID_REUSED'
             WHEN earlier.request_id IS NOT NULL THEN earlier.status
             WHEN given.parent_id IS NOT NULL AND parent.id IS NULL THEN 'PARENT_NOT_FOUND'
             WHEN parent.ended_revision IS NOT NULL THEN 'PARENT_ENDED'
             WHEN parent.expires_at <= apply_grants.at THEN 'PARENT_EXPIRED'   -- licet.requests has an `at`, too
             WHEN given.expires_at <= apply_grants.at THEN 'ALREADY_EXPIRED'
             ELSE 'done' END AS status,
           CASE
             WHEN earlier.digest = decode(given.digest, 'hex') THEN earlier.outcome || '{"replayed": true}'
             ELSE '{}' END AS earlier_outcome
    FROM given
    LEFT JOIN licet.requests AS earlier ON earlier.request_id = given.request_id
    LEFT JOIN licet.capabilities AS parent ON parent.id = given.parent_id
  ), applied AS MATERIALIZED (
    SELECT j.*, j.is_new AND j.status = 'done' AS is_granted,
           CASE WHEN NOT j.is_new THEN j.earlier_revision WHEN j.status = 'done' THEN rev ELSE rev - 1 END AS revision,
           CASE
             WHEN j.is_new AND j.status = 'done'
             THEN jsonb_build_object('capability_id', j.id, 'granted_at', (extract(epoch FROM at) * 1000000)::bigint)
             ELSE j.earlier_outcome END AS outcome
    FROM judged AS j
  ), granted AS (
    INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by, granted_at, not_before,
                                    expires_at, delegation_depth, condition, session_id, metadata, granted_revision,
                                    granted_event_id)
    SELECT a.id, a.parent_id, a.principal, a.actions, a.resource, a.actor, at, coalesce(a.not_before, '-infinity'),
           coalesce(a.expires_at, 'infinity'), a.delegation_depth, coalesce(a.condition, ''), a.session_id, a.metadata, rev, a.event_id
    FROM applied AS a WHERE a.is_granted ORDER BY a.ordinality
  ), recorded AS (
    INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource, capability_id,
                              result, reason, policy_id, session_id, trace_id, revision, metadata)
    SELECT 1, a.event_id, at, a.kind, a.actor, a.principal, '', a.resource,
           CASE WHEN a.is_granted THEN a.id::text ELSE coalesce(a.parent_id::text, '') END,
           CASE WHEN a.is_granted THEN 'done' ELSE 'refused' END, CASE WHEN a.is_granted THEN '' ELSE a.status END,
           '', a.session_id, a.trace_id, a.revision, a.facts
    FROM applied AS a WHERE a.is_new ORDER BY a.ordinality
  ), remembered AS (
    INSERT INTO licet.requests (request_id, digest, revision, status, outcome)
    SELECT a.request_id, decode(a.digest, 'hex'), a.revision, a.status, a.outcome
    FROM applied AS a WHERE a.is_new ORDER BY a.ordinality
  )
  SELECT a.ordinality::integer - 1, a.status, a.revision, a.outcome, CASE WHEN a.is_granted THEN a.principal END
  FROM applied AS a ORDER BY a.ordinality;
END $$;

-- As in 0003, and takes a condition.
CREATE OR REPLACE FUNCTION licet.apply_grant(
  mutation jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[]
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parent   licet.capabilities;
  kind     text := mutation ->> 'kind';
  facts    jsonb := mutation -> 'facts';
  event_id uuid := audit.next_change_event_id();
BEGIN
  touched := '{}';
  outcome := '{}';
  status := 'done';
  IF mutation ->> 'parent_id' IS NOT NULL THEN
    SELECT * INTO parent FROM licet.capabilities AS c WHERE c.id = (mutation ->> 'parent_id')::uuid;
    status := CASE
      WHEN parent.id IS NULL THEN 'PARENT_NOT_FOUND'
      WHEN parent.ended_revision IS NOT NULL THEN 'PARENT_ENDED'
      WHEN parent.expires_at <= at THEN 'PARENT_EXPIRED'
      ELSE 'done' END;
  END IF;
  IF status = 'done' AND (mutation ->> 'expires_at')::timestamptz <= at THEN
    status := 'ALREADY_EXPIRED';
  END IF;
  IF status <> 'done' THEN
    PERFORM audit.record_change(event_id, at, kind, mutation, mutation ->> 'principal', mutation ->> 'resource',
      coalesce(mutation ->> 'parent_id', ''), 'refused', status, mutation ->> 'session_id', rev - 1, facts);
    RETURN;
  END IF;
  INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by, granted_at, not_before, expires_at,
                                  delegation_depth, condition, session_id, metadata, granted_revision, granted_event_id)
  VALUES ((mutation ->> 'id')::uuid, (mutation ->> 'parent_id')::uuid, mutation ->> 'principal',
          ARRAY(SELECT jsonb_array_elements_text(mutation -> 'actions')), mutation ->> 'resource', mutation ->> 'actor', at,
          coalesce((mutation ->> 'not_before')::timestamptz, '-infinity'),
          coalesce((mutation ->> 'expires_at')::timestamptz, 'infinity'),
          (mutation ->> 'delegation_depth')::smallint, coalesce(mutation ->> 'condition', ''), mutation ->> 'session_id',
          mutation -> 'metadata', rev, event_id);
  PERFORM audit.record_change(event_id, at, kind, mutation, mutation ->> 'principal', mutation ->> 'resource',
    mutation ->> 'id', 'done', '', mutation ->> 'session_id', rev, facts);
  outcome := jsonb_build_object(
    'capability_id', mutation ->> 'id', 'granted_at', (extract(epoch FROM at) * 1000000)::bigint);
  touched := ARRAY[mutation ->> 'principal'];
END $$;

-- A server of the release before that goes on in spite of the schema would decide without conditions. It reads the table: that is
-- refused from now on, so that nothing more comes into its memory, and what is there goes with the first grant to its principal.
CREATE VIEW licet.all_capabilities AS SELECT * FROM licet.capabilities;
GRANT SELECT ON licet.all_capabilities TO licet_server;
REVOKE SELECT ON licet.capabilities FROM licet_server;
-- Both are called by the server's role, for dry runs.
ALTER FUNCTION licet.living_matching(text, text, text, text) SECURITY DEFINER;
ALTER FUNCTION licet.living_subtrees(uuid[]) SECURITY DEFINER;
