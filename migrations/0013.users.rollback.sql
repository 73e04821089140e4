-- All users and suspensions are gone: keys of disabled users and suspended principals count again. Who made and ended them stays
-- in the audit log, and their revisions in licet.changes.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE OR REPLACE FUNCTION licet.apply_admin_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('SELECT c.* FROM licet.%I($1, $2, $3) AS c', 'apply_' || split_part(change ->> 'kind', '.', 1) || '_change')
  INTO status, outcome, touched, wait_for USING change, rev, at;
END $$;
DROP FUNCTION licet.apply_principal_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.apply_user_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.user_as_json(licet.users);
DROP FUNCTION licet.key_names(text);
DROP FUNCTION licet.is_barred(text);
DROP INDEX licet.api_key_living_caller_idx;
DROP TABLE licet.suspensions;
DROP FUNCTION licet.guard_suspension();
DROP TABLE licet.users;
DROP FUNCTION licet.guard_user();
