-- What: licet_auditor may read the register of replicas, for `licet replicas`.
-- Locks on existing tables: none that anyone waits for.
-- Code of the previous release: works on.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

GRANT SELECT ON licet.replicas TO licet_auditor;
