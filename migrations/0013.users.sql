-- What: users with roles, who can be disabled, and principals that are suspended; both as revisions, like capabilities and keys.
-- Locks on existing tables: licet.api_keys against writes while an index is built.
-- Code of the previous release: runs on it, as long as nobody is disabled or suspended: it would let them go on.
-- It reads no events of users.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE licet.users (
  principal        text PRIMARY KEY,                                -- as whom its keys act
  name             text NOT NULL,                                   -- for people
  email            text NOT NULL,                                   -- in lower case
  roles            text[] NOT NULL,                                 -- their scopes are in domain/user.py
  created_at       timestamptz NOT NULL,
  created_by       text NOT NULL,
  created_revision bigint NOT NULL,
  changed_revision bigint NOT NULL,                                 -- of the latest change
  disabled_at      timestamptz,
  disabled_by      text,
  disable_reason   text,
  CONSTRAINT user_principal_is_user CHECK (principal ~ '^user:.' AND octet_length(principal) <= 256),
  CONSTRAINT user_name_is_label CHECK (octet_length(name) <= 128),
  CONSTRAINT user_email_is_unique UNIQUE (email),
  CONSTRAINT user_email_is_normal CHECK (
    email = lower(email COLLATE "C") AND email ~ '^[^@[:space:]]+@[^@[:space:]]+$'
    AND octet_length(email) = char_length(email) AND octet_length(email) <= 254),
  CONSTRAINT user_roles_are_known CHECK (
    cardinality(roles) > 0 AND array_position(roles, NULL) IS NULL
    AND roles <@ ARRAY['user', 'developer', 'sre', 'auditor', 'admin']),
  CONSTRAINT user_change_is_later CHECK (changed_revision >= created_revision),
  CONSTRAINT user_disabling_is_whole CHECK (num_nulls(disabled_at, disabled_by, disable_reason) IN (0, 3))
);

-- Users are disabled, and stay: what they did is on record under their name, which nobody else may get.
CREATE FUNCTION licet.guard_user() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP <> 'UPDATE' THEN
    RAISE EXCEPTION 'users are disabled, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF (OLD.principal, OLD.created_at, OLD.created_by, OLD.created_revision)
     IS DISTINCT FROM (NEW.principal, NEW.created_at, NEW.created_by, NEW.created_revision)
  THEN
    RAISE EXCEPTION 'a user stays who it is' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF NEW.changed_revision <= OLD.changed_revision THEN
    RAISE EXCEPTION 'a change of a user has a revision of its own' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_user BEFORE UPDATE OR DELETE ON licet.users
  FOR EACH ROW EXECUTE FUNCTION licet.guard_user();
CREATE TRIGGER guard_all_users BEFORE TRUNCATE ON licet.users
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_user();

CREATE TABLE licet.suspensions (
  principal          text NOT NULL,
  suspended_revision bigint NOT NULL,
  suspended_at       timestamptz NOT NULL,
  suspended_by       text NOT NULL,
  reason             text NOT NULL,
  resumed_revision   bigint,                                        -- NULL: it lasts
  resumed_at         timestamptz,
  resumed_by         text,
  resume_reason      text,
  PRIMARY KEY (principal, suspended_revision),
  CONSTRAINT suspension_principal_is_name CHECK (principal ~ '^[a-z][a-z0-9_-]{0,31}:.' AND octet_length(principal) <= 256),
  CONSTRAINT suspension_end_is_whole CHECK (num_nulls(resumed_revision, resumed_at, resumed_by, resume_reason) IN (0, 4)),
  CONSTRAINT suspension_ends_after_begin CHECK (resumed_revision > suspended_revision)
);
CREATE UNIQUE INDEX suspension_lasting_idx ON licet.suspensions (principal) WHERE resumed_revision IS NULL;

-- Only the end of a suspension changes, once.
CREATE FUNCTION licet.guard_suspension() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP <> 'UPDATE' THEN
    RAISE EXCEPTION 'suspensions are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.resumed_revision IS NOT NULL
     OR (OLD.principal, OLD.suspended_revision, OLD.suspended_at, OLD.suspended_by, OLD.reason)
        IS DISTINCT FROM (NEW.principal, NEW.suspended_revision, NEW.suspended_at, NEW.suspended_by, NEW.reason)
  THEN
    RAISE EXCEPTION 'only the end of a suspension changes' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_suspension BEFORE UPDATE OR DELETE ON licet.suspensions
  FOR EACH ROW EXECUTE FUNCTION licet.guard_suspension();
CREATE TRIGGER guard_all_suspensions BEFORE TRUNCATE ON licet.suspensions
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_suspension();

-- The keys that act as a caller. The table is small: a lock for the moment is no harm.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX api_key_living_caller_idx ON licet.api_keys (caller) WHERE ended_revision IS NULL;

-- Whether nobody may call as this caller: it is suspended, or a user who is disabled.
CREATE FUNCTION licet.is_barred(caller text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM licet.suspensions AS s WHERE s.principal = caller AND s.resumed_revision IS NULL)
      OR EXISTS (SELECT FROM licet.users AS u WHERE u.principal = caller AND u.disabled_at IS NOT NULL)
$$;

-- As what the keys that act as a caller are named in licet.changes. Under the mutation lock none of them is missing: one that is
-- made later is read later.
CREATE FUNCTION licet.key_names(caller text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg('/api_keys/' || k.id ORDER BY k.id), '{}')
  FROM licet.api_keys AS k WHERE k.caller = key_names.caller AND k.ended_revision IS NULL
$$;

-- A user as the outcome of a change, and as licet reads it; instants in microseconds.
CREATE FUNCTION licet.user_as_json(u licet.users) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'principal', u.principal, 'name', u.name, 'email', u.email, 'roles', u.roles,
    'created_at', (extract(epoch FROM u.created_at) * 1000000)::bigint, 'created_by', u.created_by,
    'revision', u.changed_revision,
    'disabled_at', (extract(epoch FROM u.disabled_at) * 1000000)::bigint,
    'disabled_by', coalesce(u.disabled_by, ''), 'disable_reason', coalesce(u.disable_reason, ''))
$$;

-- One change of the users, under the mutation lock.
CREATE FUNCTION licet.apply_user_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kind text := change ->> 'kind';
  who  text := change ->> 'principal';
  u    licet.users;
BEGIN
  touched := '{}';
  SELECT * INTO u FROM licet.users AS known WHERE known.principal = who;
  status := CASE
    WHEN kind = 'user.created' AND u.principal IS NOT NULL THEN 'USER_EXISTS'
    WHEN kind <> 'user.created' AND u.principal IS NULL THEN 'USER_NOT_FOUND'
    WHEN EXISTS (SELECT FROM licet.users AS o WHERE o.email = change ->> 'email' AND o.principal <> who) THEN 'EMAIL_TAKEN'
    WHEN kind = 'user.disabled' AND u.disabled_at IS NOT NULL THEN 'already'
    WHEN kind = 'user.enabled' AND u.disabled_at IS NULL THEN 'already'
    ELSE 'done' END;
  IF status <> 'done' THEN
    -- Whoever did it first may be waiting still: all that was done so far is waited for.
    wait_for := rev - 1;
    PERFORM audit.record_change(audit.next_change_event_id(), at, kind, change, who, '', '',
      CASE WHEN status = 'already' THEN 'done' ELSE 'refused' END, upper(status), '', wait_for, change -> 'facts');
    outcome := CASE WHEN u.principal IS NULL THEN '{}' ELSE licet.user_as_json(u) END;
    RETURN;
  END IF;
  wait_for := rev;
  CASE kind
    WHEN 'user.created' THEN
      INSERT INTO licet.users (principal, name, email, roles, created_at, created_by, created_revision, changed_revision)
      VALUES (who, change ->> 'name', change ->> 'email', ARRAY(SELECT jsonb_array_elements_text(change -> 'roles')),
              at, change ->> 'actor', rev, rev);
    WHEN 'user.updated' THEN
      UPDATE licet.users AS known
      SET name = coalesce(change ->> 'name', known.name), email = coalesce(change ->> 'email', known.email),
          roles = CASE WHEN jsonb_typeof(change -> 'roles') = 'array'
                       THEN ARRAY(SELECT jsonb_array_elements_text(change -> 'roles')) ELSE known.roles END,
          changed_revision = rev
      WHERE known.principal = who;
    WHEN 'user.disabled' THEN
      UPDATE licet.users AS known
      SET disabled_at = at, disabled_by = change ->> 'actor', disable_reason = change ->> 'reason', changed_revision = rev
      WHERE known.principal = who;
    WHEN 'user.enabled' THEN
      UPDATE licet.users AS known
      SET disabled_at = NULL, disabled_by = NULL, disable_reason = NULL, changed_revision = rev
      WHERE known.principal = who;
  END CASE;
  PERFORM audit.record_change(audit.next_change_event_id(), at, kind, change, who, '', '', 'done', '', '', rev, change -> 'facts');
  SELECT licet.user_as_json(known) INTO outcome FROM licet.users AS known WHERE known.principal = who;
  touched := ('/users/' || who) || licet.key_names(who);
  IF kind IN ('user.disabled', 'user.enabled') THEN
    touched := who || touched;  -- who may call as it is kept with what it holds
  END IF;
END $$;

-- One change of who is suspended, under the mutation lock.
CREATE FUNCTION licet.apply_principal_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kind        text := change ->> 'kind';
  who         text := change ->> 'principal';
  is_suspended boolean := EXISTS (
    SELECT FROM licet.suspensions AS s WHERE s.principal = who AND s.resumed_revision IS NULL);
BEGIN
  touched := '{}';
  outcome := '{}';
  wait_for := rev;
  status := CASE WHEN (kind = 'principal.suspended') = is_suspended THEN 'already' ELSE 'done' END;
  IF status = 'already' THEN
    -- Whoever did it first may be waiting still: all that was done so far is waited for.
    wait_for := rev - 1;
  ELSIF kind = 'principal.suspended' THEN
    INSERT INTO licet.suspensions (principal, suspended_revision, suspended_at, suspended_by, reason)
    VALUES (who, rev, at, change ->> 'actor', change ->> 'reason');
  ELSE
    UPDATE licet.suspensions AS s
    SET resumed_revision = rev, resumed_at = at, resumed_by = change ->> 'actor', resume_reason = change ->> 'reason'
    WHERE s.principal = who AND s.resumed_revision IS NULL;
  END IF;
  PERFORM audit.record_change(audit.next_change_event_id(), at, kind, change, who, '', '', 'done',
    CASE WHEN status = 'already' THEN 'ALREADY' ELSE '' END, '', wait_for, change -> 'facts');
  IF status = 'done' THEN
    touched := who || licet.key_names(who);
  END IF;
END $$;

-- As in 0012, but a call that was let in before its caller was disabled or suspended, and arrives here after, changes nothing:
-- two admins cannot shut out each other, nor does who is shut out leave a new key behind. The same with roles: `seen` has the
-- latest change of each user that the change was checked against, 0 for who is no user; if that is no longer so, nothing
-- happens, and it has to be checked again.
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
  IF EXISTS (
    SELECT FROM jsonb_each_text(change -> 'seen') AS s LEFT JOIN licet.users AS known ON known.principal = s.key
    WHERE coalesce(known.changed_revision, 0) <> s.value::bigint)
  THEN
    RAISE EXCEPTION 'a user has changed meanwhile' USING ERRCODE = 'serialization_failure';
  END IF;
  EXECUTE format('SELECT c.* FROM licet.%I($1, $2, $3) AS c', 'apply_' || split_part(change ->> 'kind', '.', 1) || '_change')
  INTO status, outcome, touched, wait_for USING change, rev, at;
END $$;

REVOKE ALL ON FUNCTION
  licet.is_barred(text), licet.key_names(text), licet.user_as_json(licet.users),
  licet.apply_user_change(jsonb, bigint, timestamptz), licet.apply_principal_change(jsonb, bigint, timestamptz)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION licet.user_as_json(licet.users) TO licet_server;
GRANT SELECT ON licet.users, licet.suspensions TO licet_server;
