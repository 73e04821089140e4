SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.apply_mutations(jsonb);
DROP FUNCTION licet.apply_revoke(jsonb, bigint, timestamptz);
DROP FUNCTION licet.apply_grant(jsonb, bigint, timestamptz);
DROP FUNCTION audit.record_refusal(jsonb);
DROP FUNCTION audit.record_change(uuid, timestamptz, text, jsonb, text, text, text, text, text, text, bigint, jsonb);
DROP FUNCTION licet.living_subtrees(uuid[]);
DROP FUNCTION licet.living_matching(text, text, text, text);
