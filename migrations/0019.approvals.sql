-- What: approvals: asked for by a DENY, given by those who have the role, and used once, as a capability of its own kind.
-- Locks on existing tables: licet.capabilities, licet.api_keys and licet.users, for a moment: none of them is read.
-- Code of the previous release: runs on it; it takes a capability for one use for an ordinary one, and knows neither the scope
-- `approve` nor the role `security`: put the first set with an approval, and give those, when no server of it runs any more.
-- It reads no events of approvals.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- Rows that there are satisfy what was stricter: they need not be read again, which would take long under the lock.
-- squawk-ignore ban-drop-constraint
ALTER TABLE licet.api_keys DROP CONSTRAINT api_key_scopes_are_known;
ALTER TABLE licet.api_keys ADD CONSTRAINT api_key_scopes_are_known CHECK (
  cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL
  AND scopes <@ ARRAY['authorize', 'grant', 'revoke', 'read', 'audit', 'policy', 'identity', 'approve', 'admin']) NOT VALID;
-- squawk-ignore ban-drop-constraint
ALTER TABLE licet.users DROP CONSTRAINT user_roles_are_known;
ALTER TABLE licet.users ADD CONSTRAINT user_roles_are_known CHECK (
  cardinality(roles) > 0 AND array_position(roles, NULL) IS NULL
  AND roles <@ ARRAY['user', 'developer', 'sre', 'security', 'auditor', 'admin']) NOT VALID;
ALTER TABLE licet.capabilities ADD COLUMN approved_roles text[];      -- NULL: an ordinary one; else it is for one use, approved by these
ALTER TABLE licet.capabilities ADD CONSTRAINT capability_for_one_use_is_narrow CHECK (
  approved_roles IS NULL
  OR (cardinality(approved_roles) > 0 AND array_position(approved_roles, NULL) IS NULL AND parent_id IS NOT NULL
      AND delegation_depth = 0 AND cardinality(actions) = 1 AND actions[1] <> '*' AND strpos(resource, '*') = 0
      AND expires_at <= granted_at + interval '1 hour')) NOT VALID;
-- squawk-ignore ban-drop-constraint
ALTER TABLE licet.capabilities DROP CONSTRAINT capability_end_cause_is_known;
ALTER TABLE licet.capabilities ADD CONSTRAINT capability_end_cause_is_known CHECK (
  end_cause IN ('REVOKED', 'CASCADE', 'EXPIRED', 'SESSION_ENDED')
  OR (end_cause = 'USED' AND approved_roles IS NOT NULL)) NOT VALID;

CREATE OR REPLACE VIEW licet.all_capabilities AS SELECT * FROM licet.capabilities;

-- As in 0017, but a capability for one use is made of any that is alive: it can do nothing that its parent cannot, and is not
-- delegated.
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
        OLD.granted_revision, OLD.granted_event_id, OLD.approved_roles)
       IS DISTINCT FROM
       (NEW.id, NEW.parent_id, NEW.principal, NEW.actions, NEW.resource, NEW.granted_by, NEW.granted_at, NEW.not_before,
        NEW.expires_at, NEW.delegation_depth, NEW.condition, NEW.conditions, NEW.session_id, NEW.metadata,
        NEW.granted_revision, NEW.granted_event_id, NEW.approved_roles)
    THEN
      RAISE EXCEPTION 'only the end of a capability changes' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF NEW.parent_id IS NOT NULL THEN
    SELECT * INTO STRICT parent FROM licet.capabilities AS c WHERE c.id = NEW.parent_id;
    IF parent.ended_revision IS NOT NULL
       OR (NEW.delegation_depth >= parent.delegation_depth AND NEW.approved_roles IS NULL)
       OR (NEW.principal <> parent.principal AND NEW.approved_roles IS NOT NULL)
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

CREATE TABLE licet.approvals (
  id              uuid PRIMARY KEY,
  principal       text NOT NULL,                                    -- who may be allowed
  action          text NOT NULL,
  resource        text NOT NULL,
  roles           text[] NOT NULL,                                  -- each has to approve; sorted, none twice
  policies        text[] NOT NULL,                                  -- that demand it
  policy_set      bigint NOT NULL,                                  -- the version that these are of
  purpose         text NOT NULL,                                    -- as the first who asked says
  session_id      text NOT NULL,
  parent_id       uuid NOT NULL REFERENCES licet.capabilities,      -- the capability that covers it
  asked_by        text NOT NULL,                                    -- the first caller who asked
  asked_at        timestamptz NOT NULL,
  asked_event_id  uuid NOT NULL,
  expires_at      timestamptz NOT NULL,                             -- until then it can be resolved
  state           text NOT NULL DEFAULT 'PENDING',
  resolved_at     timestamptz,
  resolved_by     text,                                             -- who rejected it, or gave the last consent
  comment         text,
  capability_id   uuid UNIQUE REFERENCES licet.capabilities,        -- that the last consent made
  used_at         timestamptz,
  CONSTRAINT approval_roles_are_named CHECK (cardinality(roles) > 0 AND array_position(roles, NULL) IS NULL),
  CONSTRAINT approval_purpose_is_short CHECK (octet_length(purpose) <= 1024),
  CONSTRAINT approval_state_is_known CHECK (state IN ('PENDING', 'APPROVED', 'REJECTED', 'EXPIRED', 'USED')),
  CONSTRAINT approval_resolution_is_whole CHECK (
    num_nulls(resolved_at, resolved_by, comment) = CASE WHEN state IN ('PENDING', 'EXPIRED') THEN 3 ELSE 0 END),
  CONSTRAINT approval_makes_a_capability CHECK ((capability_id IS NOT NULL) = (state IN ('APPROVED', 'USED'))),
  CONSTRAINT approval_use_is_told CHECK ((used_at IS NOT NULL) = (state = 'USED'))
);
-- One is pending for a question, and a look for it costs one row.
CREATE UNIQUE INDEX approval_pending_idx ON licet.approvals (principal, action, resource, roles) WHERE state = 'PENDING';
-- What a principal may use, and what was rejected; read with what it holds.
CREATE INDEX approval_approved_idx ON licet.approvals (principal) WHERE state = 'APPROVED';
CREATE INDEX approval_rejected_idx ON licet.approvals (principal, resolved_at) WHERE state = 'REJECTED';
-- Lists, page by page in the order of ids; and what is old.
CREATE INDEX approval_principal_idx ON licet.approvals (principal, id);
CREATE INDEX approval_state_idx ON licet.approvals (state, id);
CREATE INDEX approval_expiry_idx ON licet.approvals (expires_at);

CREATE TABLE licet.approval_consents (
  approval_id uuid NOT NULL REFERENCES licet.approvals ON DELETE CASCADE,
  role        text NOT NULL,
  given_by    text NOT NULL,
  given_at    timestamptz NOT NULL,
  comment     text NOT NULL,
  ttl_seconds bigint NOT NULL,                                      -- the capability lives no longer
  event_id    uuid NOT NULL,
  PRIMARY KEY (approval_id, role),
  CONSTRAINT consent_comment_is_short CHECK (octet_length(comment) <= 1024),
  CONSTRAINT consent_ttl_in_range CHECK (ttl_seconds BETWEEN 1 AND 3600)
);

-- What is asked for stays what it is, and is resolved once. All of it is in the audit log: what is old goes.
CREATE FUNCTION licet.guard_approval() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' OR (TG_OP = 'DELETE' AND OLD.expires_at > clock_timestamp() - interval '29 days') THEN
    RAISE EXCEPTION 'approvals are resolved, not deleted' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  IF (OLD.id, OLD.principal, OLD.action, OLD.resource, OLD.roles, OLD.policies, OLD.policy_set, OLD.purpose, OLD.session_id,
      OLD.parent_id, OLD.asked_by, OLD.asked_at, OLD.asked_event_id, OLD.expires_at)
     IS DISTINCT FROM
     (NEW.id, NEW.principal, NEW.action, NEW.resource, NEW.roles, NEW.policies, NEW.policy_set, NEW.purpose, NEW.session_id,
      NEW.parent_id, NEW.asked_by, NEW.asked_at, NEW.asked_event_id, NEW.expires_at)
     OR NOT (OLD.state = 'PENDING' AND NEW.state IN ('APPROVED', 'REJECTED', 'EXPIRED')
             OR OLD.state = 'APPROVED' AND NEW.state = 'USED' AND OLD.capability_id = NEW.capability_id)
  THEN
    RAISE EXCEPTION 'an approval is resolved once, and used once' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER guard_approval BEFORE UPDATE OR DELETE ON licet.approvals
  FOR EACH ROW EXECUTE FUNCTION licet.guard_approval();
CREATE TRIGGER guard_all_approvals BEFORE TRUNCATE ON licet.approvals
  FOR EACH STATEMENT EXECUTE FUNCTION licet.guard_approval();

-- An approval as the outcome of a change, and as licet reads it; instants in microseconds.
CREATE FUNCTION licet.approval_as_json(a licet.approvals) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'id', a.id, 'principal', a.principal, 'action', a.action, 'resource', a.resource, 'roles', a.roles, 'policies', a.policies,
    'policy_set', a.policy_set, 'purpose', a.purpose, 'session_id', a.session_id, 'parent_id', a.parent_id,
    'asked_by', a.asked_by, 'asked_at', (extract(epoch FROM a.asked_at) * 1000000)::bigint,
    'expires_at', (extract(epoch FROM a.expires_at) * 1000000)::bigint, 'state', a.state,
    'resolved_at', (extract(epoch FROM a.resolved_at) * 1000000)::bigint, 'resolved_by', coalesce(a.resolved_by, ''),
    'comment', coalesce(a.comment, ''), 'capability_id', coalesce(a.capability_id::text, ''),
    'used_at', (extract(epoch FROM a.used_at) * 1000000)::bigint,
    'consents', coalesce((
      SELECT jsonb_agg(jsonb_build_object(
        'role', c.role, 'given_by', c.given_by, 'given_at', (extract(epoch FROM c.given_at) * 1000000)::bigint,
        'comment', c.comment, 'ttl_seconds', c.ttl_seconds) ORDER BY c.given_at, c.role)
      FROM licet.approval_consents AS c WHERE c.approval_id = a.id), '[]'))
$$;

-- Whether something can come of what is pending. If the capability that covers it has ended, nothing can: the same is asked for
-- again, of whatever covers it now.
CREATE FUNCTION licet.can_be_approved(a licet.approvals, at timestamptz) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.state = 'PENDING' AND a.expires_at > at AND EXISTS (
    SELECT FROM licet.all_capabilities AS c WHERE c.id = a.parent_id AND c.ended_revision IS NULL AND c.expires_at > at)
$$;

-- What is pending for a question, or was rejected so shortly before that it is not asked again; NULL: neither.
CREATE FUNCTION licet.standing_approval(asked jsonb, at timestamptz) RETURNS licet.approvals
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a FROM licet.approvals AS a
  WHERE a.principal = asked ->> 'principal' AND a.action = asked ->> 'action' AND a.resource = asked ->> 'resource'
    AND a.roles = ARRAY(SELECT jsonb_array_elements_text(asked -> 'roles'))
    AND (a.state = 'PENDING' AND licet.can_be_approved(a, at)
         OR a.state = 'REJECTED' AND a.resolved_at > at - make_interval(secs => (asked ->> 'rejection_seconds')::double precision))
  ORDER BY a.state LIMIT 1
$$;

CREATE FUNCTION licet.pending_approvals(of_principal text, at timestamptz) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*) FROM licet.approvals AS a WHERE a.principal = of_principal AND a.state = 'PENDING' AND licet.can_be_approved(a, at)
$$;

-- For a DENY, before it makes one, and without the lock: what there is, and how many pending ones the principal has.
CREATE FUNCTION licet.find_approval(asked jsonb, OUT standing jsonb, OUT pending bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  at    timestamptz := clock_timestamp();
  found licet.approvals := licet.standing_approval(asked, at);
BEGIN
  IF found.id IS NOT NULL THEN
    standing := licet.approval_as_json(found);
  END IF;
  pending := licet.pending_approvals(asked ->> 'principal', at);
END $$;

-- Asks for an approval, if none is pending for the same. Not a revision: nobody decides by it. Nor an event, if nothing is made:
-- the DENY is one.
CREATE FUNCTION licet.request_approval(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked    jsonb := change -> 'approval';
  standing licet.approvals := licet.standing_approval(asked, at);
  event_id uuid;
BEGIN
  touched := '{}';
  outcome := '{}';
  wait_for := rev - 1;
  status := CASE
    WHEN standing.id IS NOT NULL THEN 'already'
    WHEN NOT EXISTS (SELECT FROM licet.capabilities AS c WHERE c.id = (asked ->> 'parent_id')::uuid
                     AND c.ended_revision IS NULL AND c.expires_at > at) THEN 'PARENT_ENDED'
    WHEN licet.pending_approvals(asked ->> 'principal', at) >= (asked ->> 'most')::bigint THEN 'TOO_MANY_APPROVALS'
    ELSE 'done' END;
  IF status = 'done' THEN
    UPDATE licet.approvals AS a SET state = 'EXPIRED'
    WHERE a.principal = asked ->> 'principal' AND a.state = 'PENDING' AND NOT licet.can_be_approved(a, at);
    DELETE FROM licet.approvals AS a WHERE a.id IN (
      SELECT o.id FROM licet.approvals AS o WHERE o.expires_at < at - interval '30 days' ORDER BY o.expires_at LIMIT 100);
    event_id := audit.next_change_event_id();
    INSERT INTO licet.approvals (id, principal, action, resource, roles, policies, policy_set, purpose, session_id, parent_id,
                                 asked_by, asked_at, asked_event_id, expires_at)
    VALUES ((asked ->> 'id')::uuid, asked ->> 'principal', asked ->> 'action', asked ->> 'resource',
            ARRAY(SELECT jsonb_array_elements_text(asked -> 'roles')),
            ARRAY(SELECT jsonb_array_elements_text(asked -> 'policies')), (asked ->> 'policy_set')::bigint, asked ->> 'purpose',
            asked ->> 'session_id', (asked ->> 'parent_id')::uuid, change ->> 'actor', at, event_id,
            at + make_interval(secs => (asked ->> 'seconds')::double precision))
    RETURNING * INTO standing;
    PERFORM audit.record_change(event_id, at, 'approval.requested', change, standing.principal, standing.resource,
      standing.parent_id::text, 'done', '', standing.session_id, wait_for, change -> 'facts');
  END IF;
  IF standing.id IS NOT NULL THEN
    outcome := licet.approval_as_json(standing);
  END IF;
END $$;

-- Gives consents of roles, and makes the capability with the last one; or rejects. What the caller may give was checked against
-- what never changes of an approval, and against `seen`. The principal is touched by a rejection too: whoever remembers what is
-- pending does so under the revision of what it holds.
CREATE FUNCTION licet.resolve_approval(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kind       text := change ->> 'kind';
  is_consent boolean := kind = 'approval.approved';
  given      text[] := ARRAY(SELECT jsonb_array_elements_text(change -> 'roles'));
  a          licet.approvals;
  parent     licet.capabilities;
  event_id   uuid := audit.next_change_event_id();
  is_whole   boolean := false;
BEGIN
  touched := '{}';
  outcome := '{}';
  wait_for := rev - 1;
  SELECT * INTO a FROM licet.approvals AS known WHERE known.id = (change ->> 'id')::uuid;
  SELECT * INTO parent FROM licet.capabilities AS c WHERE c.id = a.parent_id;
  status := CASE
    WHEN a.id IS NULL THEN 'APPROVAL_NOT_FOUND'
    WHEN a.state IN ('APPROVED', 'REJECTED', 'USED') THEN 'APPROVAL_RESOLVED'
    WHEN a.state = 'EXPIRED' OR a.expires_at <= at THEN 'APPROVAL_EXPIRED'
    WHEN NOT is_consent THEN 'done'
    WHEN parent.ended_revision IS NOT NULL THEN 'PARENT_ENDED'
    WHEN parent.expires_at <= at THEN 'PARENT_EXPIRED'
    WHEN EXISTS (SELECT FROM licet.suspensions AS s WHERE s.principal = a.principal AND s.resumed_revision IS NULL)
      THEN 'PRINCIPAL_SUSPENDED'
    WHEN given <@ ARRAY(SELECT c.role FROM licet.approval_consents AS c WHERE c.approval_id = a.id) THEN 'APPROVAL_GIVEN'
    ELSE 'done' END;
  IF status <> 'done' THEN
    PERFORM audit.record_change(event_id, at, kind, change, coalesce(a.principal, ''), coalesce(a.resource, ''), '',
      'refused', status, coalesce(a.session_id, ''), wait_for, change -> 'facts');
    RETURN;
  END IF;
  IF is_consent THEN
    INSERT INTO licet.approval_consents (approval_id, role, given_by, given_at, comment, ttl_seconds, event_id)
    SELECT a.id, r.role, change ->> 'actor', at, change ->> 'comment', (change ->> 'ttl_seconds')::bigint, event_id
    FROM unnest(given) AS r (role) WHERE r.role = ANY (a.roles)
    ON CONFLICT DO NOTHING;
    is_whole := a.roles <@ ARRAY(SELECT c.role FROM licet.approval_consents AS c WHERE c.approval_id = a.id);
  END IF;
  IF is_whole THEN
    INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource, granted_by, granted_at, not_before, expires_at,
                                    delegation_depth, granted_revision, granted_event_id, approved_roles)
    VALUES ((change ->> 'capability_id')::uuid, a.parent_id, a.principal, ARRAY[a.action], a.resource, change ->> 'actor', at,
            parent.not_before,
            least(parent.expires_at, at + make_interval(secs => (
              SELECT min(c.ttl_seconds) FROM licet.approval_consents AS c WHERE c.approval_id = a.id)::double precision)),
            0, rev, event_id, a.roles);
  END IF;
  IF is_whole OR NOT is_consent THEN
    UPDATE licet.approvals AS known
    SET state = CASE WHEN is_consent THEN 'APPROVED' ELSE 'REJECTED' END, resolved_at = at, resolved_by = change ->> 'actor',
        comment = change ->> 'comment', capability_id = CASE WHEN is_whole THEN (change ->> 'capability_id')::uuid END
    WHERE known.id = a.id;
    wait_for := rev;
    touched := ARRAY[a.principal];
  END IF;
  PERFORM audit.record_change(event_id, at, kind, change, a.principal, a.resource,
    CASE WHEN is_whole THEN change ->> 'capability_id' ELSE '' END, 'done', '', a.session_id, wait_for, change -> 'facts');
  SELECT licet.approval_as_json(known) INTO outcome FROM licet.approvals AS known WHERE known.id = a.id;
END $$;

-- Uses a capability up, if it is alive, for exactly this, and nobody who approved it asks: under the mutation lock, so exactly
-- once. It is the only thing that decides: what servers remember of it may be old. No event if it is refused: the DENY is one.
CREATE FUNCTION licet.use_approval(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  event_id uuid;
  c        licet.capabilities;
BEGIN
  touched := '{}';
  outcome := '{}';
  wait_for := rev - 1;
  status := 'APPROVAL_NOT_USABLE';
  IF EXISTS (SELECT FROM licet.suspensions AS s WHERE s.principal = change ->> 'principal' AND s.resumed_revision IS NULL)
     OR EXISTS (SELECT FROM licet.approval_consents AS g JOIN licet.approvals AS a ON a.id = g.approval_id
                WHERE a.capability_id = (change ->> 'id')::uuid AND g.given_by = change ->> 'not_approved_by')
  THEN
    RETURN;
  END IF;
  event_id := audit.next_change_event_id();
  UPDATE licet.capabilities AS known
  SET ended_revision = rev, ended_event_id = event_id, ended_at = at, ended_by = change ->> 'actor', end_reason = '',
      end_cause = 'USED'
  WHERE known.id = (change ->> 'id')::uuid AND known.ended_revision IS NULL AND known.approved_roles IS NOT NULL
    AND known.not_before <= at AND known.expires_at > at AND known.principal = change ->> 'principal'
    AND known.actions = ARRAY[change ->> 'action'] AND known.resource = change ->> 'resource'
  RETURNING * INTO c;
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  status := 'done';
  wait_for := rev;
  touched := ARRAY[c.principal];
  UPDATE licet.approvals AS a SET state = 'USED', used_at = at WHERE a.capability_id = c.id;
  PERFORM audit.record_change(event_id, at, 'approval.used', change, c.principal, c.resource, c.id::text, 'done', '',
    change ->> 'session_id', rev, change -> 'facts');
END $$;

-- One change of the approvals, under the mutation lock; licet.apply_admin_change calls it by its name.
CREATE FUNCTION licet.apply_approval_change(
  change jsonb, rev bigint, at timestamptz, OUT status text, OUT outcome jsonb, OUT touched text[], OUT wait_for bigint
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('SELECT c.* FROM licet.%I($1, $2, $3) AS c',
    CASE change ->> 'kind' WHEN 'approval.requested' THEN 'request_approval' WHEN 'approval.used' THEN 'use_approval'
                           ELSE 'resolve_approval' END)
  INTO status, outcome, touched, wait_for USING change, rev, at;
END $$;

REVOKE ALL ON FUNCTION
  licet.approval_as_json(licet.approvals), licet.can_be_approved(licet.approvals, timestamptz),
  licet.standing_approval(jsonb, timestamptz),
  licet.pending_approvals(text, timestamptz), licet.find_approval(jsonb),
  licet.request_approval(jsonb, bigint, timestamptz), licet.resolve_approval(jsonb, bigint, timestamptz),
  licet.use_approval(jsonb, bigint, timestamptz), licet.apply_approval_change(jsonb, bigint, timestamptz)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  licet.approval_as_json(licet.approvals), licet.can_be_approved(licet.approvals, timestamptz),
  licet.standing_approval(jsonb, timestamptz),
  licet.pending_approvals(text, timestamptz), licet.find_approval(jsonb)
TO licet_server;
GRANT SELECT ON licet.approvals, licet.approval_consents TO licet_server;
