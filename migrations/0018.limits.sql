-- What: token buckets of limits, which replicas draw slices of; docs/decisions/0039-limits.md has the proof.
-- Locks on existing tables: none.
-- Code of the previous release: works on, and enforces no limits: put the first set with one when no server of it runs any more.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

-- What a replica was granted of a bucket. Instants are microseconds since 1970, by this database's clock.
CREATE TYPE licet.slice AS (
  id      bigint,                                                   -- drawn at random by the replica
  granted bigint,                                                   -- tokens in all
  used    bigint,                                                   -- of these, those that are charged to the bucket
  ends_at bigint                                                    -- then what is not used is charged as if it were
);

-- No index but the key: each row is written often, and in place.
CREATE TABLE licet.buckets (
  bucket  bytea PRIMARY KEY,                                        -- digest of policy, parameters, principal, resource
  tat     bigint NOT NULL,                                          -- when what was charged will have come back
  full_at bigint NOT NULL,                                          -- from then on the row says what no row says: full
  slices  licet.slice[] NOT NULL,
  CONSTRAINT bucket_is_a_digest CHECK (octet_length(bucket) = 16)
) WITH (fillfactor = 70);

-- One replica's exchange with one bucket, at an instant. It reports how many tokens of its slice it has used in all, the latest
-- one at least `age` before, and wants more: `needed` for requests that wait, `wanted` to keep. With `wanted` below 0 it gives
-- the slice back. `granted` is the slice's total now, -1: there is no such slice (any more). `wait` is in how many microseconds
-- there can be another token, 0: others hold what is left; -1: there is more. Pure, so that a test can compare it with a model.
CREATE FUNCTION licet.exchange_slice(
  INOUT tat bigint, INOUT slices licet.slice[], at bigint,
  slice bigint, is_new boolean, reported bigint, age bigint, needed bigint, wanted bigint,
  tokens bigint, period bigint, burst bigint, hold bigint,
  OUT granted bigint, OUT wait bigint, OUT full_at bigint
) LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one    licet.slice;
  own    licet.slice;
  kept   licet.slice[] := '{}';
  others bigint := 0;
  spent  bigint;
  held   bigint := 0;
  room   bigint;
  more   bigint;
BEGIN
  granted := -1;
  wait := -1;
  -- A clock that was set back leaves a bucket empty, and no slice outlasts its time: nothing waits for the clock to come back.
  tat := least(tat, at + (burst * period + tokens - 1) / tokens);
  full_at := at;
  FOREACH one IN ARRAY slices LOOP
    one.ends_at := least(one.ends_at, at + hold);
    IF one.ends_at <= at THEN
      tat := greatest(tat, one.ends_at) + ((one.granted - one.used) * period + tokens - 1) / tokens;
    ELSIF one.id = slice THEN
      own := one;
    ELSE
      others := others + one.granted - one.used;
      full_at := greatest(full_at, one.ends_at);
      kept := kept || one;
    END IF;
  END LOOP;
  IF own.id IS NOT NULL THEN
    spent := least(greatest(reported - own.used, 0), own.granted - own.used);
    IF spent > 0 THEN
      tat := greatest(tat, at - age) + (spent * period + tokens - 1) / tokens;
      own.used := own.used + spent;
    END IF;
  ELSIF is_new THEN
    own := ROW(slice, 0, 0, 0);
  END IF;
  IF own.id IS NOT NULL AND wanted >= 0 THEN
    held := own.granted - own.used;
    room := greatest((burst * period - greatest(tat - at, 0) * tokens) / period - others - held, 0);
    more := least(room, greatest(needed, least(wanted, room / 2)));
    held := held + more;
    IF more = room AND more < greatest(needed, wanted) THEN
      wait := greatest(greatest(tat - at, 0) - (burst - 1 - held) * period / tokens, 0);
    END IF;
    own.granted := own.granted + more;
    own.ends_at := greatest(own.ends_at, at + hold);
    granted := own.granted;
    full_at := greatest(full_at, own.ends_at);
    kept := kept || own;
  END IF;
  full_at := greatest(full_at, tat) + ((others + held) * period + tokens - 1) / tokens;
  slices := kept;
END $$;

-- Exchanges with many buckets, in the order of their keys, so that two replicas never wait for each other. The clock is read
-- when a bucket is locked. SECURITY DEFINER: the server's role cannot fill a bucket.
CREATE FUNCTION licet.exchange_slices(
  buckets bytea[], ids bigint[], are_new boolean[], reported bigint[], ages bigint[], needed bigint[], wanted bigint[],
  tokens bigint[], periods bigint[], bursts bigint[], hold bigint
) RETURNS TABLE (item integer, granted bigint, wait bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  asked record;
  state record;
  later record;
BEGIN
  IF cardinality(buckets) > 4096 OR hold NOT BETWEEN 1 AND 600000000 OR 1 > ANY (tokens) OR 1 > ANY (periods)
     OR 1 > ANY (bursts) OR 1000000 < ANY (tokens) OR 1000000 < ANY (bursts) OR 86400000000 < ANY (periods)
     OR 0 > ANY (needed) OR 0 > ANY (ages) THEN
    RAISE EXCEPTION 'exchange_slices takes 4096 buckets at most, and limits within their bounds'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);  -- what was granted must not be forgotten in a crash
  END IF;
  FOR asked IN
    SELECT * FROM unnest(buckets, ids, are_new, reported, ages, needed, wanted, tokens, periods, bursts) WITH ORDINALITY
      AS a (bucket, id, is_new, reported, age, needed, wanted, tokens, period, burst, number)
    ORDER BY a.bucket, a.number
  LOOP
    SELECT b.tat, b.slices INTO state FROM licet.buckets AS b WHERE b.bucket = asked.bucket FOR UPDATE;
    IF NOT FOUND THEN
      INSERT INTO licet.buckets AS b (bucket, tat, full_at, slices) VALUES (asked.bucket, 0, 0, '{}')
      ON CONFLICT ON CONSTRAINT buckets_pkey DO UPDATE SET tat = b.tat
      RETURNING b.tat, b.slices INTO state;
    END IF;
    SELECT * INTO later FROM licet.exchange_slice(
      state.tat, state.slices, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
      asked.id, asked.is_new, asked.reported, asked.age, asked.needed, asked.wanted,
      asked.tokens, asked.period, asked.burst, hold);
    UPDATE licet.buckets AS b SET tat = later.tat, full_at = later.full_at, slices = later.slices
    WHERE b.bucket = asked.bucket;
    item := asked.number;
    granted := later.granted;
    wait := later.wait;
    RETURN NEXT;
  END LOOP;
END $$;

-- Deletes at most `batch` rows of buckets that have been full for a minute, and returns how many. A bucket in use is left out.
CREATE FUNCTION licet.trim_buckets(batch integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trimmed integer;
BEGIN
  DELETE FROM licet.buckets AS b
  WHERE b.bucket IN (
    SELECT o.bucket FROM licet.buckets AS o
    WHERE o.full_at < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 60000000
    LIMIT least(batch, 10000) FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS trimmed = ROW_COUNT;
  RETURN trimmed;
END $$;

REVOKE ALL ON TYPE licet.slice FROM PUBLIC;
REVOKE ALL ON FUNCTION
  licet.exchange_slice(bigint, licet.slice[], bigint, bigint, boolean, bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint),
  licet.exchange_slices(bytea[], bigint[], boolean[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint),
  licet.trim_buckets(integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
  licet.exchange_slices(bytea[], bigint[], boolean[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint),
  licet.trim_buckets(integer)
TO licet_server;
