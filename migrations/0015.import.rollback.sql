-- What was imported stays in the audit log; that it was is forgotten, so that importing it again would record it again. The code
-- of the previous release cannot read the events that were imported.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

CREATE OR REPLACE VIEW audit.activity_by_principal WITH (security_invoker = true) AS
SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.principal,
       count(*) FILTER (WHERE e.result = 'allow') AS allowed, count(*) FILTER (WHERE e.result = 'deny') AS denied,
       count(*) FILTER (WHERE e.event_type <> 'decision') AS changes, max(e.occurred_at) AS latest
FROM audit.events AS e
WHERE e.principal <> ''
GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC;
DROP FUNCTION licet.apply_import_change(jsonb, bigint, timestamptz);
DROP TABLE audit.imported;
