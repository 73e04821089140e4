-- Drops the tree, its checkpoints and the queue; the events stay. The role stays: it belongs to the cluster.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP VIEW audit.activity_by_day;
DROP VIEW audit.activity_by_principal;
DROP VIEW audit.denials_by_reason;
DROP VIEW audit.recent_decisions;
DROP VIEW audit.event_leaves;
DROP TABLE audit.archives;
DROP TABLE audit.quarantine;
DROP TABLE audit.checkpoints;
DROP TABLE audit.nodes;
DROP TABLE audit.batches;
DROP TABLE audit.log;
DROP TABLE audit.queue;
REVOKE ALL ON ALL TABLES IN SCHEMA audit, licet FROM licet_sealer;
REVOKE EXECUTE ON FUNCTION audit.ensure_partition(timestamptz) FROM licet_sealer;
REVOKE ALL ON SCHEMA audit, licet FROM licet_sealer;
