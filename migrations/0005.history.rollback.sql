SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.apply_mutations(jsonb, jsonb);

-- As in 0003.
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
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);  -- what was confirmed must survive a crash
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
REVOKE ALL ON FUNCTION licet.apply_mutations(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION licet.apply_mutations(jsonb) TO licet_server;

DROP FUNCTION licet.apply_grants(jsonb, bigint, timestamptz);
DROP FUNCTION licet.confirm_epoch(uuid);
DROP FUNCTION licet.begin_epoch();
DROP FUNCTION licet.observe_history(uuid, bigint);
DROP FUNCTION licet.went_backwards(uuid, bigint);
DROP FUNCTION licet.history();
DROP FUNCTION licet.this_database();
DROP TABLE licet.confirmed;
