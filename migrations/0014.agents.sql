-- What: agents: registered with a bootstrap token, known by a token that lives for a day, heard of by heartbeats.
-- Locks on existing tables: none.
-- Code of the previous release: runs on it; it knows of no agents, refuses their tokens, and reads no events of them.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- Each lets its holder register so many agents. Their ids are made like those of API keys, and never the same.
CREATE TABLE licet.bootstrap_tokens (
  id               text PRIMARY KEY,                                -- public, and part of the token's text
  name             text NOT NULL,                                   -- for people
  secret_sha256    bytea NOT NULL,
  principals       text[] NOT NULL,                                 -- patterns of the agents that it is good for
  max_uses         bigint NOT NULL,
  uses             bigint NOT NULL DEFAULT 0,
  expires_at       timestamptz NOT NULL,
  created_at       timestamptz NOT NULL,
  created_by       text NOT NULL,
  created_revision bigint NOT NULL,
  created_event_id uuid NOT NULL,
  ended_revision   bigint,
  ended_event_id   uuid,
  ended_at         timestamptz,
  ended_by         text,
  end_reason       text,
  CONSTRAINT bootstrap_id_is_id CHECK (id ~ '^[0-9a-hjkmnp-tv-z]{16}$'),
  CONSTRAINT bootstrap_name_is_label CHECK (octet_length(name) BETWEEN 1 AND 128),
  CONSTRAINT bootstrap_secret_is_digest CHECK (octet_length(secret_sha256) = 32),
  CONSTRAINT bootstrap_is_for_agents CHECK (
    cardinality(principals) > 0 AND array_position(principals, NULL) IS NULL
    AND array_to_string(principals, chr(10)) ~ '^(agent:[^\n]+(\n|$))+$'),
  CONSTRAINT bootstrap_uses_in_range CHECK (max_uses BETWEEN 1 AND 10000 AND uses BETWEEN 0 AND max_uses),
  CONSTRAINT bootstrap_end_is_whole CHECK (num_nulls(ended_revision, ended_event_id, ended_at, ended_by, end_reason) IN (0, 5))
);

CREATE TABLE licet.agents (
  name                 text PRIMARY KEY,                            -- its principal is agent:<name>
  hostname             text NOT NULL,
  address              text NOT NULL,
  public_key           text NOT NULL,                               -- PEM; empty: none
  created_at           timestamptz NOT NULL,
  registered_at        timestamptz NOT NULL,                        -- of the latest registration, with the next three
  registered_by        text NOT NULL,
  registered_revision  bigint NOT NULL,
  registered_event_id  uuid NOT NULL,
  offline_at           timestamptz,                                 -- it has been silent, or has no token yet
  deactivated_revision bigint,
  deactivated_event_id uuid,
  deactivated_at       timestamptz,
  deactivated_by       text,
  deactivation_reason  text,
  -- No `*`: in the limits of its token, its principal is a pattern.
  CONSTRAINT agent_name_is_name CHECK (
    octet_length(name) <= 128 AND name ~ '^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$'),
  CONSTRAINT agent_hostname_is_name CHECK (octet_length(hostname) <= 253 AND hostname ~ '^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$'),
  CONSTRAINT agent_address_is_label CHECK (octet_length(address) <= 256),
  CONSTRAINT agent_public_key_is_short CHECK (octet_length(public_key) <= 4096),
  CONSTRAINT agent_deactivation_is_whole CHECK (num_nulls(
    deactivated_revision, deactivated_event_id, deactivated_at, deactivated_by, deactivation_reason) IN (0, 5))
);
-- One that was deactivated gives the name of its host to the next.
CREATE UNIQUE INDEX agent_hostname_idx ON licet.agents (hostname) WHERE deactivated_at IS NULL;

-- Tokens of agents that may count still: those that are over go with the next one, so that an agent has a few. All that
-- there were are in the audit log. They are not API keys, so that nothing that is done to a key can be done to them.
CREATE TABLE licet.agent_tokens (
  id               text PRIMARY KEY,
  agent            text NOT NULL REFERENCES licet.agents,
  secret_sha256    bytea NOT NULL,
  created_at       timestamptz NOT NULL,
  created_revision bigint NOT NULL,
  expires_at       timestamptz NOT NULL,
  overlap_ends_at  timestamptz,                                     -- it was rotated, and ends then
  ended_revision   bigint,
  ended_at         timestamptz,
  CONSTRAINT agent_token_id_is_id CHECK (id ~ '^[0-9a-hjkmnp-tv-z]{16}$'),
  CONSTRAINT agent_token_secret_is_digest CHECK (octet_length(secret_sha256) = 32),
  CONSTRAINT agent_token_lives_a_day CHECK (expires_at <= created_at + interval '24 hours'),
  CONSTRAINT agent_token_end_is_whole CHECK (num_nulls(ended_revision, ended_at) IN (0, 2))
);
CREATE INDEX agent_token_agent_idx ON licet.agent_tokens (agent);

-- When an agent was heard of last; written by many servers, in batches and by no change.
CREATE TABLE licet.agent_heartbeats (
  agent    text PRIMARY KEY REFERENCES licet.agents,
  heard_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE FUNCTION licet.guard_bootstrap_token() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP <> 'UPDATE' THEN
    RAISE EXCEPTION 'bootstrap tokens are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.ended_revision IS NOT NULL OR NEW.uses NOT BETWEEN OLD.uses AND OLD.uses + 1
     OR (OLD.id, OLD.name, OLD.secret_sha256, OLD.principals, OLD.max_uses, OLD.expires_at,
         OLD.created_at, OLD.created_by, OLD.created_revision, OLD.created_event_id)
        IS DISTINCT FROM
        (NEW.id, NEW.name, NEW.secret_sha256, NEW.principals, NEW.max_uses, NEW.expires_at,
         NEW.created_at, NEW.created_by, NEW.created_revision, NEW.created_event_id)
  THEN
    RAISE EXCEPTION 'of a bootstrap token only the end changes, and the uses by one' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_bootstrap_token BEFORE UPDATE OR DELETE ON licet.bootstrap_tokens
  FOR EACH ROW EXECUTE FUNCTION licet.guard_bootstrap_token();
CREATE TRIGGER guard_all_bootstrap_tokens BEFORE TRUNCATE ON licet.bootstrap_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_bootstrap_token();

CREATE FUNCTION licet.guard_agent() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP <> 'UPDATE' THEN
    RAISE EXCEPTION 'agents are deactivated, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF (OLD.name, OLD.created_at) IS DISTINCT FROM (NEW.name, NEW.created_at) THEN
    RAISE EXCEPTION 'the name of an agent stays' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_agent BEFORE UPDATE OR DELETE ON licet.agents
  FOR EACH ROW EXECUTE FUNCTION licet.guard_agent();
CREATE TRIGGER guard_all_agents BEFORE TRUNCATE ON licet.agents
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_agent();

-- What ends stays ended: a token comes to nobody again, and never lives longer than it was made for.
CREATE FUNCTION licet.guard_agent_token() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF OLD.ended_revision IS NOT NULL OR (OLD.overlap_ends_at IS NOT NULL AND NEW.ended_revision IS NULL)
     OR (OLD.id, OLD.agent, OLD.secret_sha256, OLD.created_at, OLD.created_revision, OLD.expires_at)
        IS DISTINCT FROM
        (NEW.id, NEW.agent, NEW.secret_sha256, NEW.created_at, NEW.created_revision, NEW.expires_at)
  THEN
    RAISE EXCEPTION 'of an agent''s token only the end changes' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_agent_token BEFORE UPDATE ON licet.agent_tokens
  FOR EACH ROW EXECUTE FUNCTION licet.guard_agent_token();

-- When a token ends by itself.
CREATE FUNCTION licet.token_dies_at(token licet.agent_tokens) RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT least(token.expires_at, token.overlap_ends_at)
$$;

-- Stores an agent's new token, and drops those of its that are over; returns what replicas are to forget.
CREATE FUNCTION licet.insert_agent_token(agent_name text, token jsonb, rev bigint, at timestamptz) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM licet.agent_tokens AS t
  WHERE t.agent = agent_name AND (t.ended_revision < rev OR licet.token_dies_at(t) <= at);
  INSERT INTO licet.agent_tokens (id, agent, secret_sha256, created_at, created_revision, expires_at)
  VALUES (token ->> 'id', agent_name, decode(token ->> 'secret_sha256', 'hex'), at, rev,
          at + make_interval(secs => (token ->> 'ttl_seconds')::double precision));
  RETURN ARRAY['/agents/' || agent_name, '/api_keys/' || (token ->> 'id')];
END $$;

-- Ends tokens of an agent that were made after a revision; returns what replicas are to forget.
CREATE FUNCTION licet.end_agent_tokens(agent_name text, after_revision bigint, rev bigint, at timestamptz) RETURNS text[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  WITH ended AS (
    UPDATE licet.agent_tokens AS t SET ended_revision = rev, ended_at = at
    WHERE t.agent = agent_name AND t.created_revision > after_revision AND t.ended_revision IS NULL
    RETURNING t.id)
  SELECT coalesce(array_agg('/api_keys/' || e.id ORDER BY e.id), '{}') FROM ended AS e
$$;

-- Registers an agent with a bootstrap token, under the mutation lock: so its uses are counted exactly.
CREATE FUNCTION licet.register_agent(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  given    jsonb := change -> 'agent';
  boot     licet.bootstrap_tokens;
  old      licet.agents;
  event_id uuid := audit.next_change_event_id();
BEGIN
  SELECT * INTO boot FROM licet.bootstrap_tokens AS b WHERE b.id = change ->> 'id';
  SELECT * INTO old FROM licet.agents AS a WHERE a.name = given ->> 'name';
  status := CASE
    WHEN boot.id IS NULL OR boot.ended_revision IS NOT NULL OR boot.expires_at <= at OR boot.uses >= boot.max_uses
      THEN 'BOOTSTRAP_ENDED'
    WHEN old.deactivated_at IS NOT NULL THEN 'AGENT_INACTIVE'
    WHEN EXISTS (SELECT FROM licet.agent_tokens AS t
                 WHERE t.agent = old.name AND t.ended_revision IS NULL AND licet.token_dies_at(t) > at) THEN 'AGENT_EXISTS'
    WHEN EXISTS (SELECT FROM licet.agents AS a
                 WHERE a.hostname = given ->> 'hostname' AND a.deactivated_at IS NULL AND a.name <> given ->> 'name')
      THEN 'HOSTNAME_TAKEN'
    ELSE 'done' END;
  touched := '{}';
  outcome := jsonb_build_object('name', given ->> 'name');
  wait_for := rev - 1;
  IF status = 'done' THEN
    UPDATE licet.bootstrap_tokens AS b SET uses = b.uses + 1 WHERE b.id = boot.id;
    INSERT INTO licet.agents AS a (name, hostname, address, public_key, created_at, registered_at, registered_by,
                                   registered_revision, registered_event_id)
    VALUES (given ->> 'name', given ->> 'hostname', given ->> 'address', given ->> 'public_key', at, at, change ->> 'actor',
            rev, event_id)
    ON CONFLICT (name) DO UPDATE
    SET hostname = excluded.hostname, address = excluded.address, public_key = excluded.public_key,
        registered_at = excluded.registered_at, registered_by = excluded.registered_by,
        registered_revision = excluded.registered_revision, registered_event_id = excluded.registered_event_id,
        offline_at = NULL;
    touched := licet.insert_agent_token(given ->> 'name', change -> 'token', rev, at);
    IF boot.uses + 1 = boot.max_uses THEN
      touched := touched || ('/api_keys/' || boot.id);
    END IF;
    outcome := licet.agent_token_outcome(change -> 'token' ->> 'id');
    wait_for := rev;
  END IF;
  PERFORM audit.record_change(event_id, at, 'agent.registered', change, 'agent:' || (given ->> 'name'),
    'agent:' || (given ->> 'name'), '', CASE status WHEN 'done' THEN 'done' ELSE 'refused' END,
    CASE status WHEN 'done' THEN '' ELSE status END, '', wait_for, change -> 'facts');
END $$;

-- What the answer says of a token that was made.
CREATE FUNCTION licet.agent_token_outcome(token_id text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object('name', t.agent, 'token_id', t.id,
                            'expires_at', (extract(epoch FROM t.expires_at) * 1000000)::bigint)
  FROM licet.agent_tokens AS t WHERE t.id = token_id
$$;

-- Rotates a token by itself. Again with the same one, while it goes on: then whatever was made after it ends, because the
-- answer with that was lost, or went to somebody else.
CREATE FUNCTION licet.rotate_agent_token(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  old licet.agent_tokens;
BEGIN
  SELECT * INTO old FROM licet.agent_tokens AS t WHERE t.id = change ->> 'id';
  status := CASE
    WHEN old.id IS NULL OR old.ended_revision IS NOT NULL OR licet.token_dies_at(old) <= at THEN 'TOKEN_ENDED'
    ELSE 'done' END;
  touched := '{}';
  outcome := jsonb_build_object('name', change ->> 'name');
  wait_for := rev - 1;
  IF status = 'done' THEN
    touched := licet.end_agent_tokens(old.agent, old.created_revision, rev, at) || ('/api_keys/' || old.id);
    UPDATE licet.agent_tokens AS t
    SET overlap_ends_at = at + make_interval(secs => (change ->> 'overlap_seconds')::double precision)
    WHERE t.id = old.id AND t.overlap_ends_at IS NULL;
    touched := touched || licet.insert_agent_token(old.agent, change -> 'token', rev, at);
    outcome := licet.agent_token_outcome(change -> 'token' ->> 'id');
    wait_for := rev;
  END IF;
  PERFORM audit.record_change(audit.next_change_event_id(), at, 'agent.rotated', change, 'agent:' || (change ->> 'name'),
    'agent:' || (change ->> 'name'), '', CASE status WHEN 'done' THEN 'done' ELSE 'refused' END,
    CASE status WHEN 'done' THEN '' ELSE status END, '', wait_for, change -> 'facts');
END $$;

-- Deactivates an agent, which ends its tokens; or lets it be registered again.
CREATE FUNCTION licet.switch_agent(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  old      licet.agents;
  is_end   boolean := change ->> 'kind' = 'agent.deactivated';
  event_id uuid := audit.next_change_event_id();
BEGIN
  SELECT * INTO old FROM licet.agents AS a WHERE a.name = change ->> 'name';
  status := CASE
    WHEN old.name IS NULL THEN 'AGENT_NOT_FOUND'
    WHEN is_end = (old.deactivated_at IS NOT NULL) THEN CASE WHEN is_end THEN 'already_inactive' ELSE 'already_active' END
    WHEN NOT is_end AND EXISTS (SELECT FROM licet.agents AS a WHERE a.hostname = old.hostname AND a.deactivated_at IS NULL)
      THEN 'HOSTNAME_TAKEN'
    ELSE 'done' END;
  touched := '{}';
  outcome := jsonb_build_object('name', change ->> 'name');
  -- Also of what was done before: whoever did it may be waiting still.
  wait_for := CASE status WHEN 'done' THEN rev WHEN 'already_inactive' THEN old.deactivated_revision ELSE rev - 1 END;
  IF status = 'done' THEN
    touched := ARRAY['/agents/' || old.name];
    IF is_end THEN
      touched := touched || licet.end_agent_tokens(old.name, -1, rev, at);
      UPDATE licet.agents AS a
      SET deactivated_revision = rev, deactivated_event_id = event_id, deactivated_at = at,
          deactivated_by = change ->> 'actor', deactivation_reason = change ->> 'reason'
      WHERE a.name = old.name;
    ELSE
      -- Its tokens have ended: it is not there before it has been registered once more.
      UPDATE licet.agents AS a
      SET deactivated_revision = NULL, deactivated_event_id = NULL, deactivated_at = NULL, deactivated_by = NULL,
          deactivation_reason = NULL, offline_at = at
      WHERE a.name = old.name;
    END IF;
  END IF;
  PERFORM audit.record_change(event_id, at, change ->> 'kind', change, 'agent:' || (change ->> 'name'),
    'agent:' || (change ->> 'name'), '', CASE WHEN status ~ '^[a-z]' THEN 'done' ELSE 'refused' END,
    CASE status WHEN 'done' THEN '' ELSE upper(status) END, '', wait_for, change -> 'facts');
END $$;

-- One change of the agents, by its kind.
CREATE FUNCTION licet.apply_agent_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  CASE change ->> 'kind'
    WHEN 'agent.registered' THEN
      SELECT r.* INTO status, outcome, touched, wait_for FROM licet.register_agent(change, rev, at) AS r;
    WHEN 'agent.rotated' THEN
      SELECT r.* INTO status, outcome, touched, wait_for FROM licet.rotate_agent_token(change, rev, at) AS r;
    WHEN 'agent.deactivated', 'agent.activated' THEN
      SELECT s.* INTO status, outcome, touched, wait_for FROM licet.switch_agent(change, rev, at) AS s;
  END CASE;
END $$;

-- One change of the bootstrap tokens: one is made, or ended.
CREATE FUNCTION licet.apply_bootstrap_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  new_one  jsonb := change -> 'token';
  old      licet.bootstrap_tokens;
  is_end   boolean := change ->> 'kind' = 'bootstrap.revoked';
  event_id uuid := audit.next_change_event_id();
BEGIN
  SELECT * INTO old FROM licet.bootstrap_tokens AS b WHERE b.id = change ->> 'id';
  status := CASE
    WHEN is_end AND old.id IS NULL THEN 'BOOTSTRAP_NOT_FOUND'
    WHEN is_end AND old.ended_revision IS NOT NULL THEN 'already_ended'
    WHEN NOT is_end AND (new_one ->> 'expires_at')::timestamptz <= at THEN 'ALREADY_EXPIRED'
    ELSE 'done' END;
  touched := '{}';
  outcome := jsonb_build_object('token_id', change ->> 'id');
  wait_for := CASE status WHEN 'done' THEN rev WHEN 'already_ended' THEN old.ended_revision ELSE rev - 1 END;
  IF status = 'done' THEN
    touched := ARRAY['/api_keys/' || (change ->> 'id')];
    IF is_end THEN
      UPDATE licet.bootstrap_tokens AS b
      SET ended_revision = rev, ended_event_id = event_id, ended_at = at, ended_by = change ->> 'actor',
          end_reason = change ->> 'reason'
      WHERE b.id = old.id;
    ELSE
      INSERT INTO licet.bootstrap_tokens (id, name, secret_sha256, principals, max_uses, expires_at,
                                          created_at, created_by, created_revision, created_event_id)
      VALUES (change ->> 'id', new_one ->> 'name', decode(new_one ->> 'secret_sha256', 'hex'),
              ARRAY(SELECT jsonb_array_elements_text(new_one -> 'principals')), (new_one ->> 'max_uses')::bigint,
              (new_one ->> 'expires_at')::timestamptz, at, change ->> 'actor', rev, event_id);
      outcome := outcome || jsonb_build_object('created_at', (extract(epoch FROM at) * 1000000)::bigint);
    END IF;
  END IF;
  PERFORM audit.record_change(event_id, at, change ->> 'kind', change, 'bootstrap:' || (change ->> 'id'),
    'bootstrap_token:' || (change ->> 'id'), '', CASE WHEN status ~ '^[a-z]' THEN 'done' ELSE 'refused' END,
    CASE status WHEN 'done' THEN '' ELSE upper(status) END, '', wait_for, change -> 'facts');
END $$;

-- As in 0013, and the tokens of an agent: who is suspended has no call accepted with one.
CREATE OR REPLACE FUNCTION licet.key_names(caller text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg('/api_keys/' || c.id ORDER BY c.id), '{}')
  FROM (
    SELECT k.id FROM licet.api_keys AS k WHERE k.caller = key_names.caller AND k.ended_revision IS NULL
    UNION ALL
    SELECT t.id FROM licet.agent_tokens AS t
    WHERE key_names.caller LIKE 'agent:%' AND t.agent = substr(key_names.caller, 7) AND t.ended_revision IS NULL
  ) AS c
$$;

-- Whether changes may be made now; see licet.make_admin_change. Under the mutation lock.
CREATE FUNCTION licet.may_change() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT licet.went_backwards(NULL, NULL) AND c.epoch = m.epoch FROM licet.confirmed AS c, licet.meta AS m
$$;

-- Agents that have been silent for so long. One that is heard of while this is asked is found by its next heartbeat again.
CREATE FUNCTION licet.silent_agents(silence interval, most integer) RETURNS SETOF text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.name FROM licet.agents AS a LEFT JOIN licet.agent_heartbeats AS h ON h.agent = a.name
  WHERE a.offline_at IS NULL AND a.deactivated_at IS NULL
    AND greatest(a.registered_at, h.heard_at) < clock_timestamp() - silence
  ORDER BY a.name LIMIT most
$$;

-- Sets of some agents whether they are offline, with an event each. No replica answers by it, so it is no revision.
CREATE FUNCTION licet.set_agents_offline(names text[], is_offline boolean) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  at     timestamptz := clock_timestamp();
  before bigint := audit.last_change_seq();
  rev    bigint := (SELECT max(c.revision) FROM licet.changes AS c);
  name   text;
  number integer := 0;
BEGIN
  PERFORM audit.ensure_partition(at);
  FOR name IN
    UPDATE licet.agents AS a SET offline_at = CASE WHEN is_offline THEN at END WHERE a.name = ANY (names) RETURNING a.name
  LOOP
    number := number + 1;
    PERFORM audit.record_change(audit.next_change_event_id(), at, CASE WHEN is_offline THEN 'agent.offline' ELSE 'agent.online' END,
      jsonb_build_object('actor', CASE WHEN is_offline THEN 'service:licet' ELSE 'agent:' || name END, 'trace_id', ''),
      'agent:' || name, 'agent:' || name, '', 'done', '', '', rev, '{}');
  END LOOP;
  PERFORM audit.queue_changes(before, at, clock_timestamp());
  RETURN number;
END $$;

-- For the steward: marks some silent agents offline, and says how many. Asked again at the same time it finds nobody: who
-- asks need not be the only one.
CREATE FUNCTION licet.mark_silent_agents(silence interval, most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM licet.silent_agents(silence, 1)) THEN
    RETURN 0;
  END IF;
  PERFORM pg_advisory_xact_lock(20010);
  IF NOT licet.may_change() THEN
    RETURN 0;
  END IF;
  RETURN licet.set_agents_offline(ARRAY(SELECT s FROM licet.silent_agents(silence, most) AS s), true);
END $$;

-- For servers: agents that were heard of after they were marked are not offline any more.
CREATE FUNCTION licet.bring_back_agents(heard text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(20010);
  IF NOT licet.may_change() THEN
    RETURN 0;
  END IF;
  RETURN licet.set_agents_offline(ARRAY(
    SELECT a.name FROM licet.agents AS a JOIN licet.agent_heartbeats AS h ON h.agent = a.name
    WHERE a.name = ANY (heard) AND a.deactivated_at IS NULL AND h.heard_at > a.offline_at), false);
END $$;

REVOKE ALL ON FUNCTION
  licet.token_dies_at(licet.agent_tokens), licet.insert_agent_token(text, jsonb, bigint, timestamptz),
  licet.end_agent_tokens(text, bigint, bigint, timestamptz), licet.register_agent(jsonb, bigint, timestamptz),
  licet.agent_token_outcome(text), licet.rotate_agent_token(jsonb, bigint, timestamptz),
  licet.switch_agent(jsonb, bigint, timestamptz), licet.apply_agent_change(jsonb, bigint, timestamptz),
  licet.apply_bootstrap_change(jsonb, bigint, timestamptz), licet.may_change(), licet.silent_agents(interval, integer),
  licet.set_agents_offline(text[], boolean), licet.mark_silent_agents(interval, integer), licet.bring_back_agents(text[])
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION licet.mark_silent_agents(interval, integer), licet.bring_back_agents(text[]) TO licet_server;
GRANT SELECT ON licet.bootstrap_tokens, licet.agents, licet.agent_tokens, licet.agent_heartbeats TO licet_server;
GRANT INSERT, UPDATE (heard_at) ON licet.agent_heartbeats TO licet_server;
