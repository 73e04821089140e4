-- Locks audit.events against writes while the index is built, at the end for a moment against reads.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '900s';

CREATE INDEX event_resource_idx ON audit.events (resource, occurred_at);
DROP INDEX audit.event_resource_pattern_idx;
