-- All API keys are gone; who made and used them stays in the audit log, and their revisions in licet.changes.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.make_admin_change(jsonb);
DROP FUNCTION licet.apply_admin_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.apply_key_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.insert_api_key(jsonb, bigint, timestamptz);
DROP TABLE licet.api_key_uses;
DROP TABLE licet.api_keys;
DROP FUNCTION licet.guard_api_key();
