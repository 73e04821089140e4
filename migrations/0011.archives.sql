-- What: partitions of the audit log that are archived can be dropped, and no others.
-- Locks on existing tables: audit.archives against everything, for a moment.
-- Code of the previous release: runs on it.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- A partition that was dropped is made again when an event of that day comes late, and is another table then. A restored
-- one is so too, and is archived again.
ALTER TABLE audit.archives
  ADD COLUMN relation    oid            NOT NULL DEFAULT 0,
  ADD COLUMN epoch       smallint       NOT NULL DEFAULT 1,
  ADD COLUMN leaf_ranges int8multirange NOT NULL DEFAULT '{}';         -- the leaves that the file holds, of this epoch's tree
-- squawk-ignore ban-drop-constraint, constraint-missing-not-valid, adding-serial-primary-key-field
ALTER TABLE audit.archives DROP CONSTRAINT archives_pkey, ADD PRIMARY KEY (partition, relation, sha256);

CREATE FUNCTION audit.is_under_checkpoint(event uuid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM (SELECT b.epoch, b.first_leaf + b.n AS behind, b.last_id FROM audit.batches AS b
                 WHERE b.first_id <= event ORDER BY b.first_id DESC LIMIT 1) AS s
    WHERE s.last_id >= event
      AND s.behind <= (SELECT max(c.tree_size) FROM audit.checkpoints AS c WHERE c.epoch = s.epoch))
$$;

-- Drops a partition of audit.events whose every row is archived, if the log says so under a checkpoint; false when there is
-- no such partition. Rows are never changed and never deleted, so that their number tells whether any has come since.
CREATE FUNCTION audit.drop_archived_partition(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  wanted   oid;
  stored   bigint;
  archived bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'an older snapshot does not see the latest rows' USING ERRCODE = 'active_sql_transaction';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'audit.events'::regclass AND c.relname = name AND c.relnamespace = 'audit'::regnamespace) THEN
    RETURN false;
  END IF;
  -- From here on nothing is inserted into it; all else goes on.
  EXECUTE format('LOCK TABLE audit.%I IN SHARE ROW EXCLUSIVE MODE', name);
  SELECT i.inhrelid INTO STRICT wanted FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'audit.events'::regclass AND c.relname = name AND c.relnamespace = 'audit'::regnamespace;
  IF NOT EXISTS (SELECT FROM audit.archives AS a WHERE a.relation = wanted AND audit.is_under_checkpoint(a.event_id)) THEN
    RAISE EXCEPTION 'audit.% is not archived, or no checkpoint says so', name USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  EXECUTE format('SELECT count(*) FROM audit.%I', name) INTO stored;
  SELECT coalesce(sum(upper(u.leaves) - lower(u.leaves)), 0) INTO archived
  FROM (SELECT unnest(range_agg(r.leaves)) AS leaves FROM audit.archives AS a CROSS JOIN unnest(a.leaf_ranges) AS r (leaves)
        WHERE a.relation = wanted AND audit.is_under_checkpoint(a.event_id) GROUP BY a.epoch) AS u;
  IF stored <> archived THEN
    RAISE EXCEPTION 'audit.% has % events, and % are archived', name, stored, archived USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  -- Against everything, for a moment: the wait for it is bounded, because all others wait behind it.
  EXECUTE format('ALTER TABLE audit.events DETACH PARTITION audit.%I', name);
  EXECUTE format('DROP TABLE audit.%I', name);
  RETURN true;
END $$;

REVOKE ALL ON FUNCTION audit.is_under_checkpoint(uuid), audit.drop_archived_partition(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.is_under_checkpoint(uuid), audit.drop_archived_partition(text) TO licet_sealer;
