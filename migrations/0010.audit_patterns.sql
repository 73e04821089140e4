-- What: the index on the resources of audit events serves resource patterns too, whatever the database's collation.
-- Locks on existing tables: audit.events against writes while the index is built, at the end for a moment against reads.
-- Code of the previous release: works on; equality uses the new index as it used the old one.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '900s';

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX event_resource_pattern_idx ON audit.events (resource text_pattern_ops, occurred_at);
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX audit.event_resource_idx;
