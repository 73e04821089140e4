-- What: events that are stored in the transaction of a change are queued for sealing in it; what cannot be stored leaves a trace.
-- Locks on existing tables: none.
-- Code of the previous release: runs on it.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE FUNCTION audit.change_event_id(seq bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ('0000000000008000' || to_hex(seq | (-9223372036854775808)::bigint))::uuid
$$;

-- The last number that an event of a change was given. Under the mutation lock it is the caller's own.
CREATE FUNCTION audit.last_change_seq() RETURNS bigint LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END FROM audit.change_event_seq AS s
$$;

-- Queues what this transaction has stored after a number, all within a time. The mutation lock must have been held since:
-- otherwise the numbers between could be another transaction's. The time only says in which partitions to look; a clock
-- that is set meanwhile must not hide what was stored.
CREATE FUNCTION audit.queue_changes(after_seq bigint, since timestamptz, until timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  -- Known when the statement is planned: the ids of all decisions are above, and must not be looked at; nor must
  -- partitions of other days.
  low      uuid        := audit.change_event_id(after_seq + 1);
  high     uuid        := audit.change_event_id(audit.last_change_seq());
  earliest timestamptz := least(since, until) - interval '1 hour';
  latest   timestamptz := greatest(since, until) + interval '1 hour';
BEGIN
  INSERT INTO audit.queue (writer_id, first_id, last_id, min_at, max_at, n, digest)
  SELECT 0, (array_agg(e.event_id ORDER BY e.event_id))[1], (array_agg(e.event_id ORDER BY e.event_id DESC))[1],
         min(e.occurred_at), max(e.occurred_at), count(*), sha256(string_agg(e.leaf, ''::bytea ORDER BY e.event_id))
  FROM audit.event_leaves AS e
  WHERE e.event_id BETWEEN low AND high
    AND e.occurred_at BETWEEN earliest AND latest
  HAVING count(*) > 0;
END $$;

-- As before, and what it has stored is queued.
-- squawk-ignore renaming-object
ALTER FUNCTION licet.apply_mutations(jsonb, jsonb) RENAME TO apply_batch;
CREATE FUNCTION licet.apply_mutations(grants jsonb, revocations jsonb)
RETURNS TABLE (ordinal integer, status text, revision bigint, outcome jsonb, history uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before bigint;
  since  timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(20010);
  before := audit.last_change_seq();
  since := clock_timestamp();
  RETURN QUERY SELECT * FROM licet.apply_batch(grants, revocations);
  PERFORM audit.queue_changes(before, since, clock_timestamp());
END $$;

-- squawk-ignore renaming-object
ALTER FUNCTION audit.record_refusal(jsonb) RENAME TO store_refusal;
CREATE FUNCTION audit.record_refusal(event jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before bigint;
  at     timestamptz := (event ->> 'occurred_at')::timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(20010);
  before := audit.last_change_seq();
  PERFORM audit.store_refusal(event);
  PERFORM audit.queue_changes(before, at, at);
END $$;

-- Stores and queues an event of the log about itself.
CREATE FUNCTION audit.record_own(event_type text, reason text, metadata jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before bigint;
  at     timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(20010);
  before := audit.last_change_seq();
  at := clock_timestamp();
  PERFORM audit.ensure_partition(at);
  INSERT INTO audit.events (v, event_id, occurred_at, event_type, actor, principal, action, resource, capability_id,
                            result, reason, policy_id, session_id, trace_id, revision, metadata)
  VALUES (1, audit.next_change_event_id(), at, event_type, 'service:licet', '', '', '', '',
          'done', reason, '', '', '', 0, metadata);
  PERFORM audit.queue_changes(before, at, at);
END $$;

-- Moves a writer's offset over events that are lost or cannot be stored, and says so in the log; false when the offset is
-- elsewhere. With bytes they are kept in audit.quarantine.
CREATE FUNCTION audit.pass_over(writer bigint, first_seq bigint, last_seq bigint, why text, raw bytea) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE audit.writers SET shipped_seq = last_seq WHERE writer_id = writer AND shipped_seq = first_seq - 1 AND last_seq >= first_seq;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF raw IS NULL THEN
    PERFORM audit.record_own('audit.incident', 'EVENTS_LOST',
      jsonb_build_object('writer_id', writer, 'first', first_seq, 'last', last_seq, 'why', why));
  ELSE
    INSERT INTO audit.quarantine (writer_id, seq, raw, error) VALUES (writer, first_seq, raw, why);
    PERFORM audit.record_own('audit.quarantined', '', jsonb_build_object('writer_id', writer, 'sequence', first_seq, 'why', why));
  END IF;
  RETURN true;
END $$;

REVOKE ALL ON FUNCTION
  audit.change_event_id(bigint), audit.last_change_seq(), audit.queue_changes(bigint, timestamptz, timestamptz),
  audit.record_refusal(jsonb), audit.record_own(text, text, jsonb), audit.pass_over(bigint, bigint, bigint, text, bytea),
  licet.apply_mutations(jsonb, jsonb)
FROM PUBLIC;
REVOKE ALL ON FUNCTION licet.apply_batch(jsonb, jsonb), audit.store_refusal(jsonb) FROM licet_server;
GRANT EXECUTE ON FUNCTION licet.apply_mutations(jsonb, jsonb), audit.record_refusal(jsonb) TO licet_server;
GRANT EXECUTE ON FUNCTION audit.pass_over(bigint, bigint, bigint, text, bytea) TO licet_server, licet_sealer;
