-- All buckets are full again. Put a set without limits first: the previous release denies what a limit is about.
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '60s';

DROP FUNCTION licet.trim_buckets(integer);
DROP FUNCTION licet.exchange_slices(bytea[], bigint[], boolean[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint);
DROP FUNCTION licet.exchange_slice(bigint, licet.slice[], bigint, bigint, boolean, bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint);
DROP TABLE licet.buckets;
DROP TYPE licet.slice;
