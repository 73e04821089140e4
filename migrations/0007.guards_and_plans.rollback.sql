SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

ALTER FUNCTION licet.apply_revoke(jsonb, bigint, timestamptz) RESET enable_mergejoin;
ALTER FUNCTION licet.apply_revoke(jsonb, bigint, timestamptz) RESET enable_hashjoin;
ALTER FUNCTION licet.living_subtrees(uuid[]) RESET enable_mergejoin;
ALTER FUNCTION licet.living_subtrees(uuid[]) RESET enable_hashjoin;

-- As in 0003.
CREATE OR REPLACE FUNCTION licet.living_matching(holder text, resource_regex text, grantor text, session text) RETURNS SETOF uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.id
  FROM licet.capabilities AS c
  WHERE c.ended_revision IS NULL
    AND (holder IS NULL OR c.principal = holder)
    AND (resource_regex IS NULL OR c.resource ~ resource_regex)
    AND (grantor IS NULL OR c.granted_by = grantor)
    AND (session IS NULL OR (c.session_id = session AND c.session_id <> ''))
$$;

-- As in 0001.
DROP TRIGGER guard_all_capabilities ON licet.capabilities;
CREATE OR REPLACE FUNCTION licet.guard_capability() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parent licet.capabilities;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'capabilities are ended, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF OLD.ended_revision IS NOT NULL THEN
      RAISE EXCEPTION 'capability % has ended', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (OLD.id, OLD.parent_id, OLD.principal, OLD.actions, OLD.resource, OLD.granted_by, OLD.granted_at, OLD.not_before,
        OLD.expires_at, OLD.delegation_depth, OLD.condition, OLD.session_id, OLD.metadata, OLD.granted_revision, OLD.granted_event_id)
       IS DISTINCT FROM
       (NEW.id, NEW.parent_id, NEW.principal, NEW.actions, NEW.resource, NEW.granted_by, NEW.granted_at, NEW.not_before,
        NEW.expires_at, NEW.delegation_depth, NEW.condition, NEW.session_id, NEW.metadata, NEW.granted_revision, NEW.granted_event_id)
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
  RETURN NEW;
END $$;
