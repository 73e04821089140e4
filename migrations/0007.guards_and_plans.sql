-- What: capabilities cannot be truncated; revocations are planned for the filter that they have, and by indexes.
-- Locks on existing tables: licet.capabilities, for the moment in which a trigger is made.
-- Code of the previous release: runs on it.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- As in 0001, and TRUNCATE as well.
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
CREATE TRIGGER guard_all_capabilities BEFORE TRUNCATE ON licet.capabilities
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_capability();

-- As in 0003. The statement is put together so that each filter has a plan of its own: one for all would read the whole table.
CREATE OR REPLACE FUNCTION licet.living_matching(holder text, resource_regex text, grantor text, session text) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  statement text := 'SELECT c.id FROM licet.capabilities AS c WHERE c.ended_revision IS NULL';
BEGIN
  IF holder IS NOT NULL THEN
    statement := statement || ' AND c.principal = $1';
  END IF;
  IF resource_regex IS NOT NULL THEN
    statement := statement || ' AND c.resource ~ $2';
  END IF;
  IF grantor IS NOT NULL THEN
    statement := statement || ' AND c.granted_by = $3';
  END IF;
  IF session IS NOT NULL THEN
    statement := statement || ' AND c.session_id = $4 AND c.session_id <> ''''';
  END IF;
  RETURN QUERY EXECUTE statement USING holder, resource_regex, grantor, session;
END $$;

-- The planner takes a subtree for large and would read the whole table to join it: only the join by index is left to it.
ALTER FUNCTION licet.living_subtrees(uuid[]) SET enable_hashjoin = off;
ALTER FUNCTION licet.living_subtrees(uuid[]) SET enable_mergejoin = off;
ALTER FUNCTION licet.apply_revoke(jsonb, bigint, timestamptz) SET enable_hashjoin = off;
ALTER FUNCTION licet.apply_revoke(jsonb, bigint, timestamptz) SET enable_mergejoin = off;
