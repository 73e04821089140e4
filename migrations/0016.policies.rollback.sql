-- All policy sets are gone, and hold no more; who put them stays in the audit log, and their revisions in licet.changes.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE OR REPLACE FUNCTION licet.apply_admin_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF licet.is_barred(change ->> 'actor') THEN
    status := 'CALLER_BARRED';
    outcome := '{}';
    touched := '{}';
    wait_for := rev - 1;
    PERFORM audit.record_change(audit.next_change_event_id(), at, change ->> 'kind', change,
      coalesce(change ->> 'principal', ''), '', '', 'refused', status, '', wait_for, change -> 'facts');
    RETURN;
  END IF;
  CASE split_part(change ->> 'kind', '.', 1)
    WHEN 'key' THEN
      SELECT k.* INTO status, outcome, touched, wait_for FROM licet.apply_key_change(change, rev, at) AS k;
    WHEN 'user' THEN
      SELECT u.* INTO status, outcome, touched, wait_for FROM licet.apply_user_change(change, rev, at) AS u;
    WHEN 'principal' THEN
      SELECT p.* INTO status, outcome, touched, wait_for FROM licet.apply_principal_change(change, rev, at) AS p;
  END CASE;
END $$;
DROP FUNCTION licet.apply_policy_change(jsonb, bigint, timestamptz);
DROP TABLE licet.policy_sets;
DROP FUNCTION licet.guard_policy_set();
