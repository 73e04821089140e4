-- All approvals are gone, and what was not used of them ends. No key may have the scope `approve`, and no user the role
-- `security`, when the former release starts: it does not know them. Who asked for, gave and used approvals stays in the audit
-- log, and the revisions in licet.changes.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.apply_approval_change(jsonb, bigint, timestamptz);
DROP FUNCTION licet.use_approval(jsonb, bigint, timestamptz);
DROP FUNCTION licet.resolve_approval(jsonb, bigint, timestamptz);
DROP FUNCTION licet.request_approval(jsonb, bigint, timestamptz);
DROP FUNCTION licet.find_approval(jsonb);
DROP FUNCTION licet.pending_approvals(text, timestamptz);
DROP FUNCTION licet.standing_approval(jsonb, timestamptz);
DROP FUNCTION licet.can_be_approved(licet.approvals, timestamptz);
DROP FUNCTION licet.approval_as_json(licet.approvals);
DROP TABLE licet.approval_consents;
DROP TABLE licet.approvals;
DROP FUNCTION licet.guard_approval();

-- To the former release a capability for one use would be one for many, and the cause of its end unknown.
ALTER TABLE licet.capabilities DROP CONSTRAINT capability_end_cause_is_known;
ALTER TABLE licet.capabilities DISABLE TRIGGER guard_capability;
UPDATE licet.capabilities AS c
SET ended_revision = coalesce(c.ended_revision, (SELECT max(h.revision) FROM licet.changes AS h)),
    ended_event_id = coalesce(c.ended_event_id, c.granted_event_id), ended_at = coalesce(c.ended_at, clock_timestamp()),
    ended_by = coalesce(c.ended_by, 'service:licet'), end_reason = coalesce(c.end_reason, 'approvals were rolled back'),
    end_cause = CASE WHEN c.end_cause IS NULL OR c.end_cause = 'USED' THEN 'REVOKED' ELSE c.end_cause END
WHERE c.approved_roles IS NOT NULL;
ALTER TABLE licet.capabilities ENABLE TRIGGER guard_capability;
ALTER TABLE licet.capabilities ADD CONSTRAINT capability_end_cause_is_known
  CHECK (end_cause IN ('REVOKED', 'CASCADE', 'EXPIRED', 'SESSION_ENDED'));
CREATE OR REPLACE FUNCTION licet.guard_capability() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parent licet.capabilities;
BEGIN
  IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
    RAISE EXCEPTION 'capabilities are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF OLD.ended_revision IS NOT NULL THEN
      RAISE EXCEPTION 'capability % has ended', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (OLD.id, OLD.parent_id, OLD.principal, OLD.actions, OLD.resource, OLD.granted_by, OLD.granted_at, OLD.not_before,
        OLD.expires_at, OLD.delegation_depth, OLD.condition, OLD.conditions, OLD.session_id, OLD.metadata,
        OLD.granted_revision, OLD.granted_event_id)
       IS DISTINCT FROM
       (NEW.id, NEW.parent_id, NEW.principal, NEW.actions, NEW.resource, NEW.granted_by, NEW.granted_at, NEW.not_before,
        NEW.expires_at, NEW.delegation_depth, NEW.condition, NEW.conditions, NEW.session_id, NEW.metadata,
        NEW.granted_revision, NEW.granted_event_id)
    THEN
      RAISE EXCEPTION 'only the end of a capability changes' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.parent_id IS NOT NULL THEN
    SELECT * INTO STRICT parent FROM licet.capabilities AS c WHERE c.id = NEW.parent_id;
    IF parent.ended_revision IS NOT NULL
       OR NEW.delegation_depth >= parent.delegation_depth
       OR NEW.expires_at > parent.expires_at
       OR NEW.not_before < parent.not_before
       OR NOT (NEW.actions <@ parent.actions OR parent.actions @> '{*}')
    THEN
      RAISE EXCEPTION 'a delegation is inside its parent' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
  END IF;
  NEW.conditions := coalesce(parent.conditions, '{}') || CASE WHEN NEW.condition <> '' THEN ARRAY[NEW.condition] ELSE '{}' END;
  IF cardinality(NEW.conditions) > 16 OR octet_length(NEW.condition) > 2048 THEN
    RAISE EXCEPTION 'a capability has at most 16 conditions of 2048 bytes' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
DROP VIEW licet.all_capabilities;
ALTER TABLE licet.capabilities DROP CONSTRAINT capability_for_one_use_is_narrow;
ALTER TABLE licet.capabilities DROP COLUMN approved_roles;
CREATE VIEW licet.all_capabilities AS SELECT * FROM licet.capabilities;
GRANT SELECT ON licet.all_capabilities TO licet_server;
ALTER TABLE licet.users DROP CONSTRAINT user_roles_are_known;
ALTER TABLE licet.users ADD CONSTRAINT user_roles_are_known CHECK (
  cardinality(roles) > 0 AND array_position(roles, NULL) IS NULL
  AND roles <@ ARRAY['user', 'developer', 'sre', 'auditor', 'admin']);
ALTER TABLE licet.api_keys DROP CONSTRAINT api_key_scopes_are_known;
ALTER TABLE licet.api_keys ADD CONSTRAINT api_key_scopes_are_known CHECK (
  cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL
  AND scopes <@ ARRAY['authorize', 'grant', 'revoke', 'read', 'audit', 'policy', 'identity', 'admin']);
