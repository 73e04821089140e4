-- What: licet.trim_history, which ends the retention of old changes and idempotency keys, and the index it needs.
-- Locks on existing tables: licet.requests against writes, while the index is built.
-- Code of the previous release: works on; nothing is trimmed as long as only it runs.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX request_at_idx ON licet.requests (at);

-- Deletes at most `batch` changes older than `keep` and at most as many idempotency keys older than a day, which is what
-- callers are promised. Returns the greater of the two counts; 0 also when another process is at it. Changes go in the
-- order of revisions, so that what is kept has no gap, even if the clock stepped; the newest change always stays, because
-- max(revision) is the revision of the state. Who reads trimmed_through in one snapshot with the changes knows whether
-- they are all that follow a revision. SECURITY DEFINER: the server's role cannot delete history, and an hour of it
-- cannot be deleted even so.
CREATE FUNCTION licet.trim_history(keep interval, batch integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  through  bigint;
  changes  integer;
  requests integer;
BEGIN
  IF keep < interval '1 hour' OR batch NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION 'trim_history keeps an hour at least, and takes 1 to 10000 at once' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT pg_try_advisory_xact_lock(20011) THEN
    RETURN 0;
  END IF;
  SELECT coalesce(min(c.revision) FILTER (WHERE c.at >= clock_timestamp() - keep) - 1, max(c.revision)) INTO through
  FROM (SELECT o.revision, o.at FROM licet.changes AS o
        WHERE o.revision >= (SELECT m.trimmed_through FROM licet.meta AS m) ORDER BY o.revision LIMIT batch) AS c;
  through := least(through, (SELECT max(c.revision) - 1 FROM licet.changes AS c));
  UPDATE licet.meta AS m SET trimmed_through = through WHERE m.trimmed_through < through;
  DELETE FROM licet.changes AS c WHERE c.revision <= through;
  GET DIAGNOSTICS changes = ROW_COUNT;
  DELETE FROM licet.requests AS r
  WHERE r.request_id IN (
    SELECT o.request_id FROM licet.requests AS o WHERE o.at < clock_timestamp() - interval '24 hours' ORDER BY o.at LIMIT batch);
  GET DIAGNOSTICS requests = ROW_COUNT;
  RETURN greatest(changes, requests);
END $$;
REVOKE ALL ON FUNCTION licet.trim_history(interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION licet.trim_history(interval, integer) TO licet_server;
