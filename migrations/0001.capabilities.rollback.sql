-- The roles stay: they belong to the cluster, and other databases of it may use them.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP TABLE licet.replicas;
DROP TABLE licet.requests;
DROP TABLE licet.capabilities;
DROP FUNCTION licet.guard_capability();
DROP TABLE licet.changes;
DROP TABLE licet.meta;
DROP TABLE licet.migrations;
DROP SCHEMA licet;
