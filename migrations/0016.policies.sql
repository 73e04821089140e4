-- What: policy sets: put and rolled back as revisions, like capabilities; all versions are kept, the latest one holds.
-- Locks on existing tables: none.
-- Code of the previous release: runs on it, and knows of no policies: put the first set when no server of it runs any more.
-- It reads no events of theirs.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE licet.policy_sets (
  version       bigint PRIMARY KEY,                                 -- 1, 2, 3, ...; the highest one holds
  source        text NOT NULL,                                      -- the document as it was put
  source_sha256 bytea NOT NULL,
  comment       text NOT NULL,                                      -- for people
  rollback_of   bigint REFERENCES licet.policy_sets,                -- it has the document of that version
  put_at        timestamptz NOT NULL,
  put_by        text NOT NULL,
  put_revision  bigint NOT NULL,
  put_event_id  uuid NOT NULL,
  CONSTRAINT policy_set_version_counts CHECK (version > 0 AND rollback_of < version),
  CONSTRAINT policy_set_source_has_a_bound CHECK (octet_length(source) <= 524288),
  CONSTRAINT policy_set_source_is_digested CHECK (source_sha256 = sha256(convert_to(source, 'UTF8'))),
  CONSTRAINT policy_set_comment_is_short CHECK (octet_length(comment) <= 1024)
);

-- What held once is evidence.
CREATE FUNCTION licet.guard_policy_set() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'policy sets are neither changed nor deleted' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER guard_policy_set BEFORE UPDATE OR DELETE ON licet.policy_sets
  FOR EACH ROW EXECUTE FUNCTION licet.guard_policy_set();
CREATE TRIGGER guard_all_policy_sets BEFORE TRUNCATE ON licet.policy_sets
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_policy_set();

-- One change of the policies, under the mutation lock; licet.apply_admin_change calls it by its name. In licet.changes the set
-- that holds is named /policy.
CREATE FUNCTION licet.apply_policy_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  latest   bigint := coalesce((SELECT max(s.version) FROM licet.policy_sets AS s), 0);
  expected bigint := (change ->> 'expected_version')::bigint;
  former   bigint := (change ->> 'rollback_of')::bigint;
  document text := change ->> 'source';
  event_id uuid := audit.next_change_event_id();
BEGIN
  touched := '{}';
  outcome := '{}';
  wait_for := rev - 1;
  IF former IS NOT NULL THEN
    document := (SELECT s.source FROM licet.policy_sets AS s WHERE s.version = former);
  END IF;
  status := CASE
    WHEN document IS NULL THEN 'POLICY_SET_NOT_FOUND'
    WHEN expected IS NOT NULL AND expected <> latest THEN 'POLICY_SET_CHANGED'
    ELSE 'done' END;
  IF status <> 'done' THEN
    PERFORM audit.record_change(event_id, at, change ->> 'kind', change, '', '', '', 'refused', status, '', wait_for,
      change -> 'facts');
    RETURN;
  END IF;
  wait_for := rev;
  INSERT INTO licet.policy_sets (version, source, source_sha256, comment, rollback_of, put_at, put_by, put_revision, put_event_id)
  VALUES (latest + 1, document, sha256(convert_to(document, 'UTF8')), change ->> 'comment', former, at, change ->> 'actor', rev,
          event_id);
  PERFORM audit.record_change(event_id, at, change ->> 'kind', change, '', 'policy_set:' || (latest + 1), '', 'done', '', '', rev,
    change -> 'facts');
  touched := ARRAY['/policy'];
  outcome := jsonb_build_object('version', latest + 1);
END $$;

REVOKE ALL ON FUNCTION licet.apply_policy_change(jsonb, bigint, timestamptz) FROM PUBLIC;
GRANT SELECT ON licet.policy_sets TO licet_server;
