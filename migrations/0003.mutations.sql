-- What: the only way to change authorization state: licet.apply_mutations, and the queries that it shares with dry runs.
-- Locks on existing tables: none.
-- Code of the previous release: there is none.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- The living capabilities that match every field of a filter; NULL matches all. An expired one counts as living here:
-- the clock of a replica may be behind this one's, and what it still allows must end with the revocation.
CREATE FUNCTION licet.living_matching(holder text, resource_regex text, grantor text, session text) RETURNS SETOF uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.id
  FROM licet.capabilities AS c
  WHERE c.ended_revision IS NULL
    AND (holder IS NULL OR c.principal = holder)
    AND (resource_regex IS NULL OR c.resource ~ resource_regex)
    AND (grantor IS NULL OR c.granted_by = grantor)
    AND (session IS NULL OR (c.session_id = session AND c.session_id <> ''))
$$;

-- The living among the given capabilities and all their living descendants, each once. A living capability has living
-- ancestors only, so nothing is missed behind an ended one.
CREATE FUNCTION licet.living_subtrees(roots uuid[]) RETURNS TABLE (id uuid, principal text, is_root boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE tree AS (
    SELECT c.id, c.principal FROM licet.capabilities AS c WHERE c.id = ANY (roots) AND c.ended_revision IS NULL
    UNION
    SELECT c.id, c.principal
    FROM licet.capabilities AS c JOIN tree ON c.parent_id = tree.id
    WHERE c.ended_revision IS NULL
  )
  SELECT tree.id, tree.principal, tree.id = ANY (roots) FROM tree
$$;

-- Stores one audit event of a change, in the transaction of the change.
CREATE FUNCTION audit.record_change(
  event_id uuid, at timestamptz, event_type text, mutation jsonb, principal text, resource text, capability_id text,
  result text, reason text, session_id text, revision bigint, metadata jsonb
) RETURNS void LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource, capability_id,
                            result, reason, policy_id, session_id, trace_id, revision, metadata)
  VALUES (1, event_id, at, event_type, mutation ->> 'actor', principal, '', resource, capability_id,
          result, reason, '', session_id, mutation ->> 'trace_id', revision, metadata)
$$;

-- Stores the audit event of an attempt that the server refused; nothing changes, so it needs no mutation lock.
CREATE FUNCTION audit.record_refusal(event jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  at timestamptz := (event ->> 'occurred_at')::timestamptz;
BEGIN
  PERFORM audit.ensure_partition(at);
  PERFORM audit.record_change(audit.next_change_event_id(), at, event ->> 'event_type', event, event ->> 'principal',
    event ->> 'resource', event ->> 'capability_id', 'refused', event ->> 'reason', event ->> 'session_id',
    (SELECT max(c.revision) FROM licet.changes AS c), event -> 'metadata');
END $$;

-- A grant or a delegation. The server has checked the delegation against its parent, which never changes but for its
-- end: whether it is alive is checked here, under the mutation lock.
CREATE FUNCTION licet.apply_grant(
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
                                  delegation_depth, session_id, metadata, granted_revision, granted_event_id)
  VALUES ((mutation ->> 'id')::uuid, (mutation ->> 'parent_id')::uuid, mutation ->> 'principal',
          ARRAY(SELECT jsonb_array_elements_text(mutation -> 'actions')), mutation ->> 'resource', mutation ->> 'actor', at,
          coalesce((mutation ->> 'not_before')::timestamptz, '-infinity'),
          coalesce((mutation ->> 'expires_at')::timestamptz, 'infinity'),
          (mutation ->> 'delegation_depth')::smallint, mutation ->> 'session_id', mutation -> 'metadata', rev, event_id);
  PERFORM audit.record_change(event_id, at, kind, mutation, mutation ->> 'principal', mutation ->> 'resource',
    mutation ->> 'id', 'done', '', mutation ->> 'session_id', rev, facts);
  outcome := jsonb_build_object(
    'capability_id', mutation ->> 'id', 'granted_at', (extract(epoch FROM at) * 1000000)::bigint);
  touched := ARRAY[mutation ->> 'principal'];
END $$;

-- A revocation by id or by filter, with its cascade. One audit event for each capability that ends.
CREATE FUNCTION licet.apply_revoke(
  mutation jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  target licet.capabilities;
  roots  uuid[];
  filter jsonb := mutation -> 'filter';
BEGIN
  touched := '{}';
  status := 'done';
  wait_for := rev;
  outcome := jsonb_build_object('count', 0, 'ids', '[]'::jsonb);
  IF mutation ->> 'id' IS NOT NULL THEN
    SELECT * INTO target FROM licet.capabilities AS c WHERE c.id = (mutation ->> 'id')::uuid;
    IF target.id IS NULL OR target.ended_revision IS NOT NULL THEN
      status := CASE WHEN target.id IS NULL THEN 'NOT_FOUND' ELSE 'already_ended' END;
      wait_for := coalesce(target.ended_revision, rev - 1);
      PERFORM audit.record_change(audit.next_change_event_id(), at, 'revoke', mutation, coalesce(target.principal, ''),
        coalesce(target.resource, ''), mutation ->> 'id', CASE WHEN target.id IS NULL THEN 'refused' ELSE 'done' END,
        CASE WHEN target.id IS NULL THEN 'NOT_FOUND' ELSE 'ALREADY_ENDED' END, coalesce(target.session_id, ''), wait_for,
        mutation -> 'facts');
      RETURN;
    END IF;
    roots := ARRAY[target.id];
  ELSE
    roots := ARRAY(SELECT licet.living_matching(
      filter ->> 'principal', filter ->> 'resource_regex', filter ->> 'granted_by', filter ->> 'session_id'));
  END IF;
  WITH tree AS MATERIALIZED (
    SELECT t.id, t.is_root FROM licet.living_subtrees(roots) AS t
  ), ended AS (
    UPDATE licet.capabilities AS c
    SET ended_revision = rev, ended_event_id = audit.next_change_event_id(), ended_at = at,
        ended_by = mutation ->> 'actor', end_reason = mutation ->> 'reason',
        end_cause = CASE WHEN tree.is_root THEN 'REVOKED' ELSE 'CASCADE' END
    FROM tree WHERE c.id = tree.id
    RETURNING c.*
  ), recorded AS (
    INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource, capability_id,
                              result, reason, policy_id, session_id, trace_id, revision, metadata)
    SELECT 1, ended.ended_event_id, at, 'revoke', mutation ->> 'actor', ended.principal, '', ended.resource, ended.id::text,
           'done', CASE WHEN ended.end_cause = 'CASCADE' THEN 'CASCADE' ELSE '' END, '', ended.session_id,
           mutation ->> 'trace_id', rev, mutation -> 'facts'
    FROM ended
  )
  SELECT jsonb_build_object('count', count(*), 'ids', to_jsonb((array_agg(ended.id ORDER BY ended.id))[1:1000])),
         array_agg(DISTINCT ended.principal)
  INTO outcome, touched
  FROM ended;
  IF outcome ->> 'count' = '0' THEN
    -- A filter that matched nothing changes nothing, and is on record all the same.
    touched := '{}';
    wait_for := rev - 1;
    outcome := jsonb_build_object('count', 0, 'ids', '[]'::jsonb);
    PERFORM audit.record_change(audit.next_change_event_id(), at, 'revoke', mutation, coalesce(filter ->> 'principal', ''),
      coalesce(filter ->> 'resource', ''), '', 'done', 'NOTHING_MATCHED', coalesce(filter ->> 'session_id', ''), wait_for,
      mutation -> 'facts');
  END IF;
END $$;

-- Applies a batch of mutations as one revision and returns, for each, its status, the revision to wait for and its outcome.
-- A mutation that violates a constraint fails alone. One statement and one transaction, because a client that is stopped in the middle must not sit on the lock; the
-- lock is taken before the revision is read, in a statement of its own, so that the order of commits is the order of
-- revisions. SECURITY DEFINER: the server's role has no other way to change authorization state.
CREATE FUNCTION licet.apply_mutations(mutations jsonb)
RETURNS TABLE (ordinal integer, status text, revision bigint, outcome jsonb)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rev      bigint;
  at       timestamptz;
  mutation jsonb;
  earlier  licet.requests;
  touched  text[];
  affected text[] := '{}';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'apply_mutations needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  PERFORM pg_advisory_xact_lock(20010);
  rev := (SELECT max(c.revision) + 1 FROM licet.changes AS c);
  at := clock_timestamp();
  PERFORM audit.ensure_partition(at);
  ordinal := 0;
  FOR mutation IN SELECT m.value FROM jsonb_array_elements(mutations) WITH ORDINALITY AS m (value, position) ORDER BY m.position LOOP
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
  licet.living_matching(text, text, text, text), licet.living_subtrees(uuid[]),
  audit.record_change(uuid, timestamptz, text, jsonb, text, text, text, text, text, text, bigint, jsonb),
  audit.record_refusal(jsonb),
  licet.apply_grant(jsonb, bigint, timestamptz), licet.apply_revoke(jsonb, bigint, timestamptz),
  licet.apply_mutations(jsonb)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  licet.living_matching(text, text, text, text), licet.living_subtrees(uuid[]),
  licet.apply_mutations(jsonb), audit.record_refusal(jsonb)
TO licet_server;
