-- Archived partitions stay dropped; of each that was archived more than once only the first archive is remembered.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION audit.drop_archived_partition(text);
DROP FUNCTION audit.is_under_checkpoint(uuid);
ALTER TABLE audit.archives DISABLE TRIGGER append_only;
DELETE FROM audit.archives AS a USING audit.archives AS b
WHERE a.partition = b.partition AND (a.created_at, a.ctid) > (b.created_at, b.ctid);
ALTER TABLE audit.archives ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.archives DROP CONSTRAINT archives_pkey, ADD PRIMARY KEY (partition);
ALTER TABLE audit.archives DROP COLUMN leaf_ranges, DROP COLUMN epoch, DROP COLUMN relation;
