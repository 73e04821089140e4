-- What: a history that went backwards is noticed, and nothing is changed before its operator confirms it; grants go together.
-- Locks on existing tables: none.
-- Code of the previous release: refuses this schema.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- Changes are made while this is the epoch, and in this database.
CREATE TABLE licet.confirmed (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch    uuid NOT NULL,
  database text                                                     -- licet.this_database(); NULL: no change yet
);
INSERT INTO licet.confirmed (epoch) SELECT m.epoch FROM licet.meta AS m;
GRANT SELECT ON licet.confirmed TO licet_server;

-- Names the database with what a restore or a failover cannot help changing: another cluster has another identifier,
-- recovery to a point in time and the promotion of a standby begin another timeline, and what is restored from a dump
-- has other oids. A copy of the files has all of them in common: only an operator can tell. Fails on a standby.
CREATE FUNCTION licet.this_database() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT concat_ws('/', s.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid,
                   'licet.changes'::regclass::oid)
  FROM pg_control_system() AS s, pg_database AS d WHERE d.datname = current_database()
$$;

-- Names the history: another one when the epoch is another, and also when the database is and nobody has noticed yet.
CREATE FUNCTION licet.history() RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT encode(substr(sha256(convert_to(m.epoch::text || licet.this_database(), 'UTF8')), 1, 16), 'hex')::uuid
  FROM licet.meta AS m
$$;

-- Whether the database is not the one in which the last change was made, or somebody knows of a revision of this epoch
-- that it has not: changes were lost.
CREATE FUNCTION licet.went_backwards(known_epoch uuid, known_revision bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(c.database <> licet.this_database(), false)
      OR coalesce(m.epoch = known_epoch AND known_revision > (SELECT max(h.revision) FROM licet.changes AS h), false)
  FROM licet.confirmed AS c, licet.meta AS m
$$;

-- Another epoch, in this database. For the operator, who owns the schema, after a restore; and for the functions below.
CREATE FUNCTION licet.begin_epoch() RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  begun uuid := gen_random_uuid();
BEGIN
  PERFORM pg_advisory_xact_lock(20010);
  UPDATE licet.meta SET epoch = begun;
  UPDATE licet.confirmed SET database = licet.this_database();
  RETURN begun;
END $$;

-- For the operator: changes may be made again. Only in the epoch that was looked at; returns whether it still is the epoch.
CREATE FUNCTION licet.confirm_epoch(looked_at uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(20010);
  UPDATE licet.confirmed SET epoch = looked_at
  WHERE NOT licet.went_backwards(NULL, NULL) AND looked_at = (SELECT m.epoch FROM licet.meta AS m);
  RETURN FOUND;
END $$;

-- For a replica that registers or is refused: what it knows, or NULLs. The lock is taken only where it is needed, and then
-- looked again.
CREATE FUNCTION licet.observe_history(known_epoch uuid, known_revision bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF licet.went_backwards(known_epoch, known_revision) THEN
    PERFORM pg_advisory_xact_lock(20010);
    IF licet.went_backwards(known_epoch, known_revision) THEN
      PERFORM licet.begin_epoch();
    END IF;
  END IF;
END $$;

-- Grants and delegations in one statement: one by one, each pays for four. The rules are those of licet.apply_grant, which
-- takes over where one of them violates a constraint; two with one request id do. None may be the parent of another. Joins
-- are left to indexes, also by a plan from the time when the tables were small.
CREATE FUNCTION licet.apply_grants(mutations jsonb, rev bigint, at timestamptz)
RETURNS TABLE (ordinal integer, status text, revision bigint, outcome jsonb, principal text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
  SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH given AS (
    SELECT * FROM ROWS FROM (jsonb_to_recordset(mutations) AS (
      kind text, request_id text, digest text, id uuid, parent_id uuid, principal text, actions text[], resource text,
      not_before timestamptz, expires_at timestamptz, delegation_depth smallint, session_id text, metadata jsonb,
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
                                    expires_at, delegation_depth, session_id, metadata, granted_revision, granted_event_id)
    SELECT a.id, a.parent_id, a.principal, a.actions, a.resource, a.actor, at, coalesce(a.not_before, '-infinity'),
           coalesce(a.expires_at, 'infinity'), a.delegation_depth, a.session_id, a.metadata, rev, a.event_id
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

-- squawk-ignore ban-drop-function
DROP FUNCTION licet.apply_mutations(jsonb);

-- Applies a batch of mutations as one revision, grants first, and returns, for each, its status, the revision to wait for, its
-- outcome and the history in which all that is so. The callers of a batch all wait, so any order of them is right; in this
-- one what is revoked stays revoked. In a history that is not confirmed every mutation is HISTORY_UNCONFIRMED and nothing is
-- applied; that the history is another one is found out here, under the lock, and stays found out.
-- A mutation that violates a constraint fails alone. One statement and one transaction, because a client that is stopped in
-- the middle must not sit on the lock; the lock is taken before the revision is read, in a statement of its own, so that the
-- order of commits is the order of revisions. SECURITY DEFINER: the server's role has no other way to change authorization state.
CREATE FUNCTION licet.apply_mutations(grants jsonb, revocations jsonb)
RETURNS TABLE (ordinal integer, status text, revision bigint, outcome jsonb, history uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rev      bigint;
  at       timestamptz;
  one      record;
  mutation jsonb;
  one_by_one jsonb := revocations;
  earlier  licet.requests;
  touched  text[];
  affected text[] := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'apply_mutations needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);  -- what was confirmed must survive a crash
  END IF;
  PERFORM pg_advisory_xact_lock(20010);
  IF licet.went_backwards(NULL, NULL) THEN
    PERFORM licet.begin_epoch();
  END IF;
  UPDATE licet.confirmed AS c SET database = licet.this_database() WHERE c.database IS NULL;
  history := licet.history();
  rev := (SELECT max(c.revision) + 1 FROM licet.changes AS c);
  IF (SELECT c.epoch <> m.epoch FROM licet.confirmed AS c, licet.meta AS m) THEN
    RETURN QUERY SELECT o, 'HISTORY_UNCONFIRMED', rev - 1, '{}'::jsonb, history
    FROM generate_series(0, jsonb_array_length(grants) + jsonb_array_length(revocations) - 1) AS o;
    RETURN;
  END IF;
  at := clock_timestamp();
  PERFORM audit.ensure_partition(at);
  ordinal := 0;
  IF (SELECT NOT array_agg(g.id) && array_agg(g.parent_id) FROM jsonb_to_recordset(grants) AS g (id text, parent_id text)) THEN
    BEGIN
      -- What a function returns is complete before the first row of it is seen: none was returned if one fails.
      FOR one IN SELECT * FROM licet.apply_grants(grants, rev, at) LOOP
        ordinal := one.ordinal;
        status := one.status;
        revision := one.revision;
        outcome := one.outcome;
        IF one.principal IS NOT NULL THEN
          affected := affected || one.principal;
        END IF;
        RETURN NEXT;
      END LOOP;
      ordinal := ordinal + 1;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
      one_by_one := grants || revocations;
    END;
  ELSE
    one_by_one := grants || revocations;  -- none, or one is the parent of another
  END IF;
  FOR mutation IN
    SELECT m.value FROM jsonb_array_elements(one_by_one) WITH ORDINALITY AS m (value, position) ORDER BY m.position
  LOOP
    SELECT * INTO earlier FROM licet.requests AS r WHERE r.request_id = mutation ->> 'request_id';
    IF FOUND THEN
      IF earlier.digest = decode(mutation ->> 'digest', 'hex') THEN
        status := earlier.status;
        outcome := earlier.outcome || '{"replayed": true}';
      ELSE
        status := 'REQUEST_ID_REUSED';
        outcome := '{}';
      END IF;
      revision := earlier.revision;
    ELSE
      touched := '{}';
      BEGIN
        revision := rev;
        IF mutation ->> 'kind' = 'revoke' THEN
          SELECT r.status, r.outcome, r.touched, r.wait_for INTO status, outcome, touched, revision
          FROM licet.apply_revoke(mutation, rev, at) AS r;
          -- A filter that matched nothing: what it would have matched may have ended in this batch, just before.
          IF status = 'done' AND revision < rev AND cardinality(affected) > 0 THEN
            revision := rev;
          END IF;
        ELSE
          SELECT g.status, g.outcome, g.touched INTO status, outcome, touched FROM licet.apply_grant(mutation, rev, at) AS g;
          IF cardinality(touched) = 0 THEN
            revision := rev - 1;
          END IF;
        END IF;
        INSERT INTO licet.requests (request_id, digest, revision, status, outcome)
        VALUES (mutation ->> 'request_id', decode(mutation ->> 'digest', 'hex'), revision, status, outcome);
      EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
        -- Rolled back to here: the others of the batch are not concerned.
        status := 'FAILED';
        outcome := jsonb_build_object('sqlstate', SQLSTATE);
        touched := '{}';
        revision := rev - 1;
      END;
      affected := affected || touched;
    END IF;
    RETURN NEXT;
    ordinal := ordinal + 1;
  END LOOP;
  IF cardinality(affected) > 0 THEN
    affected := ARRAY(SELECT DISTINCT unnest(affected));
    IF cardinality(affected) > 10000 THEN
      INSERT INTO licet.changes (revision, kind, principals) VALUES (rev, 1, '{}');
    ELSE
      INSERT INTO licet.changes (revision, kind, principals) VALUES (rev, 0, affected);
    END IF;
    PERFORM pg_notify('licet_changes', rev::text);
  END IF;
END $$;

REVOKE ALL ON FUNCTION
  licet.this_database(), licet.history(), licet.went_backwards(uuid, bigint), licet.observe_history(uuid, bigint),
  licet.begin_epoch(), licet.confirm_epoch(uuid), licet.apply_grants(jsonb, bigint, timestamptz),
  licet.apply_mutations(jsonb, jsonb)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  licet.this_database(), licet.history(), licet.observe_history(uuid, bigint), licet.apply_mutations(jsonb, jsonb)
TO licet_server;
