-- What: what makes the audit log provable: the queue to the sealer, the tree with its checkpoints, archives, and views for people.
-- Locks on existing tables: none.
-- Code of the previous release: runs on it; what it stores is sealed once the next migration queues it.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'licet_sealer') THEN
    BEGIN
      CREATE ROLE licet_sealer NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- another database's migration was faster
    END;
  END IF;
  IF NOT pg_has_role(current_user, 'licet_sealer', 'MEMBER') THEN
    EXECUTE format('GRANT licet_sealer TO %I', current_user);
  END IF;
END $$;
GRANT USAGE ON SCHEMA licet, audit TO licet_sealer;

-- What is stored and not sealed yet: one row for each batch, inserted in the transaction that stores its events. Taken
-- by the sealer in the order of batch_id. No watermark of transactions: an idle one elsewhere in the cluster would
-- hold it back.
CREATE TABLE audit.queue (
  batch_id  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  writer_id bigint      NOT NULL CHECK (writer_id >= 0),
  first_id  uuid        NOT NULL,
  last_id   uuid        NOT NULL,
  min_at    timestamptz NOT NULL,
  max_at    timestamptz NOT NULL,
  n         bigint      NOT NULL CHECK (n > 0),
  digest    bytea       NOT NULL CHECK (octet_length(digest) = 32),  -- SHA-256 of the leaves, concatenated
  mac       bytea,                                                    -- key id and HMAC, by a key that is not in the database
  CONSTRAINT queue_ids CHECK (first_id <= last_id AND min_at <= max_at),
  -- What is stored in the transaction of a change is written by the database, which has no key.
  CONSTRAINT queue_mac CHECK ((mac IS NULL) = (writer_id = 0))
);

-- An epoch is one tree, from its first leaf on. A new one begins after a restore that lost sealed events, and then only.
CREATE TABLE audit.log (
  only_row  boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
  log_id    uuid     NOT NULL DEFAULT gen_random_uuid(),               -- what hosts keep of it is kept under this
  origin    text     NOT NULL CHECK (origin <> ''),
  epoch     smallint NOT NULL DEFAULT 1 CHECK (epoch > 0),
  tree_size bigint   NOT NULL DEFAULT 0 CHECK (tree_size >= 0),
  root      bytea    NOT NULL DEFAULT sha256('') CHECK (octet_length(root) = 32)
);
INSERT INTO audit.log (origin) SELECT 'licet.local/' || left(gen_random_uuid()::text, 8);

-- Sealed batches, in the order of their leaves. The hashes stand together: 33 bytes a leaf, where a row each has 100.
CREATE TABLE audit.batches (
  epoch       smallint    NOT NULL,
  first_leaf  bigint      NOT NULL CHECK (first_leaf >= 0),
  n           bigint      NOT NULL CHECK (n > 0),
  writer_id   bigint      NOT NULL,
  first_id    uuid        NOT NULL,
  last_id     uuid        NOT NULL,
  min_at      timestamptz NOT NULL,
  max_at      timestamptz NOT NULL,
  sealed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  leaf_hashes bytea       NOT NULL,
  PRIMARY KEY (epoch, first_leaf),
  CONSTRAINT batch_hashes CHECK (octet_length(leaf_hashes) = 32 * n)
);
ALTER TABLE audit.batches ALTER leaf_hashes SET STORAGE EXTERNAL;      -- so that substring() reads no more than it must
CREATE UNIQUE INDEX batch_first_id_idx ON audit.batches (first_id);
CREATE INDEX batch_writer_idx ON audit.batches (writer_id, epoch, first_leaf);
CREATE INDEX batch_time_idx ON audit.batches (max_at);

-- The hash of each complete subtree of 256^level leaves.
CREATE TABLE audit.nodes (
  epoch smallint NOT NULL,
  level smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
  idx   bigint   NOT NULL CHECK (idx >= 0),
  hash  bytea    NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (epoch, level, idx)
);

CREATE TABLE audit.checkpoints (
  epoch      smallint    NOT NULL,
  tree_size  bigint      NOT NULL CHECK (tree_size >= 0),
  root       bytea       NOT NULL CHECK (octet_length(root) = 32),
  note       text        NOT NULL,                                     -- signed, as C2SP tlog-checkpoint has it
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (epoch, tree_size)
);

-- What could not be stored as an event: its bytes and why.
CREATE TABLE audit.quarantine (
  id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  writer_id bigint      NOT NULL,
  seq       bigint      NOT NULL,
  raw       bytea       NOT NULL,
  error     text        NOT NULL,
  at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (writer_id, seq)
);

-- Partitions that were written to a file, and the leaf that says so.
CREATE TABLE audit.archives (
  partition  text        PRIMARY KEY,
  file       text        NOT NULL,
  sha256     bytea       NOT NULL CHECK (octet_length(sha256) = 32),
  events     bigint      NOT NULL CHECK (events >= 0),
  event_id   uuid        NOT NULL,                                     -- of the event audit.partition_archived
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['batches', 'nodes', 'checkpoints', 'quarantine', 'archives'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('ALTER TABLE audit.%I ENABLE ALWAYS TRIGGER append_only', name);
  END LOOP;
END $$;

-- The canonical bytes of an event and their hash, from SQL alone. An expression and not a function of the row, which
-- PostgreSQL would not inline.
CREATE VIEW audit.event_leaves WITH (security_invoker = true) AS
SELECT e.event_id, e.occurred_at, sha256('\x00'::bytea || b.leaf) AS leaf_hash, b.leaf
FROM audit.events AS e
CROSS JOIN LATERAL (SELECT
  '\x001000000002'::bytea || int2send(e.v) || '\x00000010'::bytea || uuid_send(e.event_id)
  || '\x00000008'::bytea || timestamptz_send(e.occurred_at)
  || int4send(octet_length(e.event_type)) || convert_to(e.event_type, 'UTF8')
  || int4send(octet_length(e.actor)) || convert_to(e.actor, 'UTF8')
  || int4send(octet_length(e.principal)) || convert_to(e.principal, 'UTF8')
  || int4send(octet_length(e.action)) || convert_to(e.action, 'UTF8')
  || int4send(octet_length(e.resource)) || convert_to(e.resource, 'UTF8')
  || int4send(octet_length(e.capability_id)) || convert_to(e.capability_id, 'UTF8')
  || int4send(octet_length(e.result)) || convert_to(e.result, 'UTF8')
  || int4send(octet_length(e.reason)) || convert_to(e.reason, 'UTF8')
  || int4send(octet_length(e.policy_id)) || convert_to(e.policy_id, 'UTF8')
  || int4send(octet_length(e.session_id)) || convert_to(e.session_id, 'UTF8')
  || int4send(octet_length(e.trace_id)) || convert_to(e.trace_id, 'UTF8')
  || '\x00000008'::bytea || int8send(e.revision)
  || int4send(octet_length(e.metadata::text) + 1) || '\x01'::bytea || convert_to(e.metadata::text, 'UTF8') AS leaf
) AS b;

-- For people with psql.
CREATE VIEW audit.recent_decisions WITH (security_invoker = true) AS
SELECT e.occurred_at, e.principal, e.action, e.resource, e.result, e.reason, e.capability_id, e.actor, e.event_id
FROM audit.events AS e
WHERE e.event_type = 'decision' AND e.occurred_at > clock_timestamp() - interval '1 hour'
ORDER BY e.occurred_at DESC;

CREATE VIEW audit.denials_by_reason WITH (security_invoker = true) AS
SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.reason, count(*) AS denials,
       count(DISTINCT e.principal) AS principals, max(e.occurred_at) AS latest
FROM audit.events AS e
WHERE e.event_type = 'decision' AND e.result = 'deny'
GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC;

CREATE VIEW audit.activity_by_principal WITH (security_invoker = true) AS
SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.principal,
       count(*) FILTER (WHERE e.result = 'allow') AS allowed, count(*) FILTER (WHERE e.result = 'deny') AS denied,
       count(*) FILTER (WHERE e.event_type <> 'decision') AS changes, max(e.occurred_at) AS latest
FROM audit.events AS e
WHERE e.principal <> ''
GROUP BY 1, 2 ORDER BY 1 DESC, 3 DESC;

CREATE VIEW audit.activity_by_day WITH (security_invoker = true) AS
SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.event_type, e.result, count(*) AS events
FROM audit.events AS e
GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3;

-- Rights. Whoever serves stores events and queues them; whoever seals builds the tree; nobody changes what is there.
GRANT SELECT ON ALL TABLES IN SCHEMA audit TO licet_server, licet_sealer, licet_auditor;
GRANT INSERT ON audit.queue, audit.quarantine TO licet_server;
GRANT INSERT ON audit.events, audit.writers, audit.queue, audit.quarantine TO licet_sealer;
GRANT UPDATE (shipped_seq, closed_seq) ON audit.writers TO licet_sealer;
GRANT INSERT ON audit.batches, audit.nodes, audit.checkpoints, audit.archives TO licet_sealer;
GRANT UPDATE (origin, epoch, tree_size, root) ON audit.log TO licet_sealer;
GRANT UPDATE, DELETE ON audit.queue TO licet_sealer;                   -- UPDATE for SELECT ... FOR UPDATE
GRANT EXECUTE ON FUNCTION audit.ensure_partition(timestamptz) TO licet_sealer;
GRANT SELECT ON licet.migrations, licet.meta, licet.capabilities, licet.changes TO licet_sealer;
