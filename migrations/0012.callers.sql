-- What: API keys: who may call licet, with which scopes and limits; made, rotated and revoked as revisions, like capabilities.
-- Locks on existing tables: none.
-- Code of the previous release: runs on it; it knows of no keys and asks for none.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE licet.api_keys (
  id               text PRIMARY KEY,                                -- public, and part of the key's text
  name             text NOT NULL,                                   -- for people
  secret_sha256    bytea NOT NULL,
  scopes           text[] NOT NULL,
  caller           text NOT NULL,                                   -- as whom it acts: a principal, or key:<id of the first>
  principals       text[] NOT NULL DEFAULT '{}',                    -- patterns of the principals it is about; empty: any
  resources        text[] NOT NULL DEFAULT '{}',                    -- patterns of the resources it is about; empty: any
  expires_at       timestamptz NOT NULL DEFAULT 'infinity',
  replaces         text REFERENCES licet.api_keys,
  overlap_ends_at  timestamptz,                                     -- it was rotated, and ends then
  created_at       timestamptz NOT NULL,
  created_by       text NOT NULL,
  created_revision bigint NOT NULL,
  created_event_id uuid NOT NULL,
  ended_revision   bigint,
  ended_event_id   uuid,
  ended_at         timestamptz,
  ended_by         text,
  end_reason       text,
  CONSTRAINT api_key_id_is_id CHECK (id ~ '^[0-9a-hjkmnp-tv-z]{16}$'),
  CONSTRAINT api_key_name_is_label CHECK (octet_length(name) BETWEEN 1 AND 128),
  CONSTRAINT api_key_secret_is_digest CHECK (octet_length(secret_sha256) = 32),
  CONSTRAINT api_key_scopes_are_known CHECK (
    cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL
    AND scopes <@ ARRAY['authorize', 'grant', 'revoke', 'read', 'audit', 'policy', 'identity', 'admin']),
  CONSTRAINT api_key_caller_is_name CHECK (caller ~ '^[a-z][a-z0-9_-]{0,31}:.' AND octet_length(caller) <= 256),
  CONSTRAINT api_key_end_is_whole CHECK (num_nulls(ended_revision, ended_event_id, ended_at, ended_by, end_reason) IN (0, 5)),
  CONSTRAINT api_key_ends_after_creation CHECK (ended_revision >= created_revision)
);
-- A key is rotated once: a second time would be a second line of keys that nobody counts.
CREATE UNIQUE INDEX api_key_replaces_idx ON licet.api_keys (replaces) WHERE replaces IS NOT NULL;

-- When a key was used last, to the minute; written by many servers at once and by no change.
CREATE TABLE licet.api_key_uses (
  id           text PRIMARY KEY REFERENCES licet.api_keys,
  last_used_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Only the end of a key changes, and that it was rotated; each once.
CREATE FUNCTION licet.guard_api_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP <> 'UPDATE' THEN
    RAISE EXCEPTION 'API keys are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.ended_revision IS NOT NULL OR (OLD.overlap_ends_at IS NOT NULL AND NEW.ended_revision IS NULL) THEN
    RAISE EXCEPTION 'API key % has ended or was rotated', OLD.id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF (OLD.id, OLD.name, OLD.secret_sha256, OLD.scopes, OLD.caller, OLD.principals, OLD.resources, OLD.expires_at, OLD.replaces,
      OLD.created_at, OLD.created_by, OLD.created_revision, OLD.created_event_id)
     IS DISTINCT FROM
     (NEW.id, NEW.name, NEW.secret_sha256, NEW.scopes, NEW.caller, NEW.principals, NEW.resources, NEW.expires_at, NEW.replaces,
      NEW.created_at, NEW.created_by, NEW.created_revision, NEW.created_event_id)
  THEN
    RAISE EXCEPTION 'only the end of an API key changes' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_api_key BEFORE UPDATE OR DELETE ON licet.api_keys
  FOR EACH ROW EXECUTE FUNCTION licet.guard_api_key();
CREATE TRIGGER guard_all_api_keys BEFORE TRUNCATE ON licet.api_keys
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_api_key();

-- Stores one key and its event.
CREATE FUNCTION licet.insert_api_key(change jsonb, rev bigint, at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key      jsonb := change -> 'key';
  event_id uuid := audit.next_change_event_id();
BEGIN
  INSERT INTO licet.api_keys (id, name, secret_sha256, scopes, caller, principals, resources, expires_at, replaces,
                              created_at, created_by, created_revision, created_event_id)
  VALUES (key ->> 'id', key ->> 'name', decode(key ->> 'secret_sha256', 'hex'),
          ARRAY(SELECT jsonb_array_elements_text(key -> 'scopes')), key ->> 'caller',
          ARRAY(SELECT jsonb_array_elements_text(key -> 'principals')),
          ARRAY(SELECT jsonb_array_elements_text(key -> 'resources')),
          coalesce((key ->> 'expires_at')::timestamptz, 'infinity'), change ->> 'id', at, change ->> 'actor', rev, event_id);
  PERFORM audit.record_change(event_id, at, 'key.created', change, key ->> 'caller', 'api_key:' || (key ->> 'id'), '',
    'done', '', '', rev, change -> 'facts' || jsonb_build_object('key_id', key ->> 'id'));
END $$;

-- One change of the keys, under the mutation lock: what it did, and which keys replicas have to forget.
CREATE FUNCTION licet.apply_key_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  old      licet.api_keys;
  kind     text := change ->> 'kind';
  event_id uuid;
  overlap  timestamptz := at + make_interval(secs => coalesce((change ->> 'overlap_seconds')::double precision, 0));
BEGIN
  touched := '{}';
  outcome := '{}';
  wait_for := rev;
  SELECT * INTO old FROM licet.api_keys AS k WHERE k.id = change ->> 'id';
  status := CASE
    WHEN (change ->> 'only_first')::boolean AND EXISTS (SELECT FROM licet.api_keys) THEN 'KEYS_EXIST'
    WHEN kind <> 'key.created' AND old.id IS NULL THEN 'KEY_NOT_FOUND'
    WHEN kind = 'key.revoked' AND old.ended_revision IS NOT NULL THEN 'already_ended'
    WHEN kind = 'key.rotated' AND old.ended_revision IS NOT NULL THEN 'KEY_ENDED'
    WHEN kind = 'key.rotated' AND old.overlap_ends_at IS NOT NULL THEN 'KEY_ROTATED'
    WHEN kind = 'key.rotated' AND old.expires_at <= at THEN 'KEY_EXPIRED'
    WHEN kind <> 'key.revoked' AND (change -> 'key' ->> 'expires_at')::timestamptz <= at THEN 'ALREADY_EXPIRED'
    ELSE 'done' END;
  event_id := audit.next_change_event_id();
  IF status <> 'done' THEN
    wait_for := CASE WHEN status = 'already_ended' THEN old.ended_revision ELSE rev - 1 END;
    PERFORM audit.record_change(event_id, at, kind, change, coalesce(old.caller, ''),
      coalesce('api_key:' || (change ->> 'id'), ''), '', CASE WHEN status = 'already_ended' THEN 'done' ELSE 'refused' END,
      upper(status), '', wait_for, change -> 'facts');
    outcome := jsonb_build_object('key_id', change ->> 'id');
    RETURN;
  END IF;
  IF kind = 'key.revoked' THEN
    UPDATE licet.api_keys AS k
    SET ended_revision = rev, ended_event_id = event_id, ended_at = at, ended_by = change ->> 'actor',
        end_reason = change ->> 'reason'
    WHERE k.id = old.id;
  ELSIF kind = 'key.rotated' THEN
    UPDATE licet.api_keys AS k SET overlap_ends_at = overlap WHERE k.id = old.id;
  END IF;
  IF old.id IS NOT NULL THEN
    PERFORM audit.record_change(event_id, at, kind, change, old.caller, 'api_key:' || old.id, '', 'done', '', '', rev,
      change -> 'facts');
    touched := ARRAY['/api_keys/' || old.id];
    outcome := jsonb_build_object('key_id', old.id);
  END IF;
  IF kind <> 'key.revoked' THEN
    PERFORM licet.insert_api_key(change, rev, at);
    touched := touched || ('/api_keys/' || (change -> 'key' ->> 'id'));
    outcome := jsonb_build_object('key_id', change -> 'key' ->> 'id', 'created_at', (extract(epoch FROM at) * 1000000)::bigint);
  END IF;
END $$;

-- One change of licet's own administration, by licet.apply_<kind>_change.
CREATE FUNCTION licet.apply_admin_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('SELECT c.* FROM licet.%I($1, $2, $3) AS c', 'apply_' || split_part(change ->> 'kind', '.', 1) || '_change')
  INTO status, outcome, touched, wait_for USING change, rev, at;
END $$;

-- Makes a change of licet's own administration: one revision, in one transaction with its events, repeatable under its request
-- id; as licet.apply_mutations, and under the same lock. In licet.changes a key is named /api_keys/<id>, which no principal can
-- be.
CREATE FUNCTION licet.make_admin_change(change jsonb)
RETURNS TABLE (status text, revision bigint, outcome jsonb, history uuid)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rev     bigint;
  at      timestamptz;
  before  bigint;
  earlier licet.requests;
  touched text[];
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'make_admin_change needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);  -- what was confirmed must survive a crash
  END IF;
  PERFORM pg_advisory_xact_lock(20010);
  IF licet.went_backwards(NULL, NULL) THEN
    PERFORM licet.begin_epoch();
  END IF;
  UPDATE licet.confirmed AS c SET database = licet.this_database() WHERE c.database IS NULL;
  history := licet.history();
  rev := (SELECT max(c.revision) + 1 FROM licet.changes AS c);
  revision := rev - 1;
  outcome := '{}';
  IF (SELECT c.epoch <> m.epoch FROM licet.confirmed AS c, licet.meta AS m) THEN
    status := 'HISTORY_UNCONFIRMED';
    RETURN NEXT;
    RETURN;
  END IF;
  SELECT * INTO earlier FROM licet.requests AS r WHERE r.request_id = change ->> 'request_id';
  IF FOUND THEN
    revision := earlier.revision;
    status := 'REQUEST_ID_REUSED';
    IF earlier.digest = decode(change ->> 'digest', 'hex') THEN
      status := earlier.status;
      outcome := earlier.outcome || '{"replayed": true}';
    END IF;
    RETURN NEXT;
    RETURN;
  END IF;
  at := clock_timestamp();
  PERFORM audit.ensure_partition(at);
  before := audit.last_change_seq();
  SELECT c.status, c.outcome, c.touched, c.wait_for INTO status, outcome, touched, revision
  FROM licet.apply_admin_change(change, rev, at) AS c;
  INSERT INTO licet.requests (request_id, digest, revision, status, outcome)
  VALUES (change ->> 'request_id', decode(change ->> 'digest', 'hex'), revision, status, outcome);
  IF cardinality(touched) > 0 THEN
    INSERT INTO licet.changes (revision, kind, principals) VALUES (rev, 0, touched);
    PERFORM pg_notify('licet_changes', rev::text);
  END IF;
  PERFORM audit.queue_changes(before, at, clock_timestamp());
  RETURN NEXT;
END $$;

REVOKE ALL ON FUNCTION
  licet.insert_api_key(jsonb, bigint, timestamptz), licet.apply_key_change(jsonb, bigint, timestamptz),
  licet.apply_admin_change(jsonb, bigint, timestamptz), licet.make_admin_change(jsonb)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION licet.make_admin_change(jsonb) TO licet_server;
GRANT SELECT ON licet.api_keys TO licet_server;
GRANT SELECT, INSERT, UPDATE (last_used_at) ON licet.api_key_uses TO licet_server;
