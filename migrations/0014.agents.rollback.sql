-- All agents, their tokens and all bootstrap tokens are gone; what they did stays in the audit log, and their revisions in
-- licet.changes.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE OR REPLACE FUNCTION licet.key_names(caller text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg('/api_keys/' || k.id ORDER BY k.id), '{}')
  FROM licet.api_keys AS k WHERE k.caller = key_names.caller AND k.ended_revision IS NULL
$$;
DROP FUNCTION licet.mark_silent_agents(interval, integer);
DROP FUNCTION licet.bring_back_agents(text[]);
DROP FUNCTION licet.set_agents_offline(text[], boolean);
DROP FUNCTION licet.silent_agents(interval, integer);
DROP FUNCTION licet.may_change();
DROP FUNCTION licet.apply_bootstrap_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.apply_agent_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.switch_agent(jsonb, bigint, timestamptz);
DROP FUNCTION licet.rotate_agent_token(jsonb, bigint, timestamptz);
DROP FUNCTION licet.register_agent(jsonb, bigint, timestamptz);
DROP FUNCTION licet.agent_token_outcome(text);
DROP FUNCTION licet.end_agent_tokens(text, bigint, bigint, timestamptz);
DROP FUNCTION licet.insert_agent_token(text, jsonb, bigint, timestamptz);
DROP FUNCTION licet.token_dies_at(licet.agent_tokens);
DROP TABLE licet.agent_heartbeats;
DROP TABLE licet.agent_tokens;
DROP TABLE licet.agents;
DROP TABLE licet.bootstrap_tokens;
DROP FUNCTION licet.guard_agent_token();
DROP FUNCTION licet.guard_agent();
DROP FUNCTION licet.guard_bootstrap_token();
