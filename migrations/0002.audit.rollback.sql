-- Drops the audit log with all its events: archive it first.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION audit.next_change_event_id();
DROP SEQUENCE audit.change_event_seq;
DROP TABLE audit.writers;
DROP FUNCTION audit.ensure_partition(timestamptz);
DROP TABLE audit.events;
DROP FUNCTION audit.refuse_change();
DROP SCHEMA audit;
