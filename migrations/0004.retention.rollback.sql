SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.trim_history(interval, integer);
DROP INDEX licet.request_at_idx;
