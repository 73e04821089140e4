-- What is queued stays queued, and what is sealed sealed.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION audit.pass_over(bigint, bigint, bigint, text, bytea);
DROP FUNCTION audit.record_own(text, text, jsonb);
DROP FUNCTION audit.record_refusal(jsonb);
ALTER FUNCTION audit.store_refusal(jsonb) RENAME TO record_refusal;
DROP FUNCTION licet.apply_mutations(jsonb, jsonb);
ALTER FUNCTION licet.apply_batch(jsonb, jsonb) RENAME TO apply_mutations;
GRANT EXECUTE ON FUNCTION licet.apply_mutations(jsonb, jsonb), audit.record_refusal(jsonb) TO licet_server;
DROP FUNCTION audit.queue_changes(bigint, timestamptz, timestamptz);
DROP FUNCTION audit.last_change_seq();
DROP FUNCTION audit.change_event_id(bigint);
