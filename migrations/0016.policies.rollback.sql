-- All policy sets are gone, and hold no more; who put them stays in the audit log, and their revisions in licet.changes.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.apply_policy_change(jsonb, bigint, timestamptz);
DROP TABLE licet.policy_sets;
DROP FUNCTION licet.guard_policy_set();
