/*
 * The protocol that makes a revocation final: one log of revisions, a cache of capability sets in every
 * replica, and leases whose end is judged by whoever waits. For Spin 6.5; `make model` runs all of it, and
 *
 *   spin -a [-DSWITCH ...] revocation.pml && gcc -O2 -DSAFETY -DCOLLAPSE pan.c -o pan && ./pan -m100000
 *
 * runs one configuration by hand. docs/decisions/0013-models.md says what was checked and what is not here.
 *
 * Who is who; numbers in parentheses are the steps of the protocol:
 *   mutation   (1)-(3)       migrations/0003.mutations.sql (licet.apply_mutations), writer/group_commit.py
 *              (11)          writer/acknowledgements.py (Observations.settle), from the commit to the answer
 *   replica    (4)-(7)       replica/coherence.py (Replica), storage/replicas.py (PostgresReplicaSession)
 *   authorize  (8)           replica/capability_sets.py (CachedCapabilitySets.get), replica/lease.py
 *   fill       (9)           replica/capability_sets.py (CachedCapabilitySets._fill)
 *   passing, postgres_crash, wal_writer, clock_step: time and faults
 *
 * Two promises are asserted:
 *   P1  a request that started after Revoke returned is not allowed, neither by the revoked capability (-DCHECKP)
 *       nor by one delegated from it (without);
 *   P2  a request that started after Grant returned is not refused, unless a revocation was committed.
 * Each safeguard has a switch that removes it; models/checks.py lists them, with what must come of it.
 *
 * Abstractions, each allowing more than the code does:
 *   - Time is ticks that pass at any moment. A lease ends anywhere in 0 to HOLDMAX ticks after its renewal was
 *     SENT (so HOLDMAX is the slowest clock that is admitted); whoever waits does so for WAITT ticks at least.
 *   - SIGSTOP, a collection, a starved thread: a process that is not chosen while time goes on.
 *   - A lost notification, a cut connection, an answer lost after the statement ran: the branches back to `idle`.
 *   - "The beat changed since it was observed" is one bit, which is exact, because beats only grow.
 *   - A process that is killed leaves no entry behind: the weakest case for whoever waits.
 *   - One principal is cached, and it is known whether it holds the capability.
 *   - Only replica 0 fills and decides unless -DFULL: replicas share nothing but their entries.
 *   - Evictions mark the principal, -DIN_FLIGHT only the fills in flight, as the code does. That is the same as
 *     long as every fill reads the primary (-DFILL_STALE: it may read a standby that lags).
 * -DSTAMPS adds the stamp of an entry: an entry that is not older than a change survives it, and a fill does not
 * replace a newer entry. -DONE_WATCHER makes both mutations wait in one process, whose observations last.
 */
#ifndef NREP
#define NREP 2
#endif
#define NMUT 2
#ifndef HOLDMAX
#define HOLDMAX 2
#endif
#ifndef WAITT
#ifdef NO_MARGIN
#define WAITT (HOLDMAX-1)
#else
#define WAITT HOLDMAX
#endif
#endif
#ifdef ID_REUSE
#define ROW(i) 0
#else
#define ROW(i) (i)
#endif
#ifndef MAXRESTART
#define MAXRESTART 0
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
#ifdef FULL
#define OBS(i) true
#else
#define OBS(i) (i == 0)
#endif

#define REVOKE   0
#define DELEGATE 1
#define NOOPMUT  2
#define NONE     HOLDMAX          /* age of "no lease / nothing in flight" */

#ifdef CHECKP
#define HOLDS (parent==1)
#else
#define HOLDS (child==1)
#endif
#ifdef ONE_WATCHER
#define WI(w,k) (k)
#else
#define WI(w,k) ((w)*NREP+(k))
#endif
/* -DWITNESS=n: "this situation never happens" must be REFUTED (the model is not vacuous) */
#ifdef WITNESS
#define WIT(n,c) assert(!(WITNESS == n && (c)))
bit fenced_once = 0; bit registered_again = 0;
#else
#define WIT(n,c) skip
#endif

/* ---------------- database ---------------- */
byte parent = 1;          /* 1 active, 2 revoked */
byte child  = 0;          /* 0 absent, 1 active, 2 revoked */
byte next_revision = 0;         /* allocated */
byte max_revision  = 0;         /* max committed = what max(revision) shows */
bit  committed[3];
bit  touched[3];          /* revision touches the cached principal */
#ifdef FILL_STALE
bit  was = 0;             /* what was held one revision ago */
#define REMEMBER was = HOLDS
#else
#define REMEMBER skip
#endif
byte revoke_rev = 0;
byte lock = 0;
bit  row[NREP];
byte row_applied[NREP];
#ifdef RENEW_ASYNC
bit  samev[NREP];         /* durable row version == current row version */
#endif
#ifdef REG_ASYNC
bit  pdur[NREP];
#endif
#ifdef DBCLOCK
byte dage[NREP];          /* age of lease_until by the DB clock */
#endif

/* ---------------- those who wait (Observations._since); index WI(w,row) ---------------- */
bit  wseen[4]; bit eqc[4]; byte wage[4];
#ifdef RENEW_ASYNC
bit  eqd[4];
#endif
bit revoke_returned = 0;
bit revoke_committed = 0;
bit grant_returned = 0;
bit deny_seen = 0;        /* some replica has answered DENY because of the revoke */

/* ---------------- replicas ---------------- */
bit  registered[NREP];
byte applied[NREP];
byte lease_age[NREP];     /* ticks since the SEND of the last successful renewal, saturating */
byte sent_age[NREP];      /* ticks since the send of the renewal in flight; NONE if none */
byte entry[NREP];        /* 0 none, 1 cached "no", 2 cached "yes" */
byte invalidated[NREP];   /* max(last invalidation of the principal, floor) */
#ifdef IN_FLIGHT
bit  filling = 0; byte mark = 0;       /* a fill of replica 0 runs; the last eviction meanwhile */
#define MARK(i,r) if :: i == 0 && filling && r > mark -> mark = r :: else fi
#define DISCARD(i,R) (R < mark || R < invalidated[i])
#else
#define MARK(i,r) if :: OBS(i) && r > invalidated[i] -> invalidated[i] = r :: else fi
#define DISCARD(i,R) (R < invalidated[i])
#endif
#ifdef STAMPS
byte stamp[NREP];         /* the revision at which the entry was read */
#define STORE(i,v,R) entry[i] = 1 + v; stamp[i] = R
#define FORGET(i)    entry[i] = 0; stamp[i] = 0
#define IS_NEWER(i,R) (entry[i] != 0 && stamp[i] >= R)
#else
#define STORE(i,v,R) entry[i] = 1 + v
#define FORGET(i)    entry[i] = 0
#define IS_NEWER(i,R) false
#endif
#if MAXRESTART > 0
bit  gen[NREP];           /* process incarnation: kill -9 also kills fills and requests in flight */
byte nrestart = 0;
#define GEN(i) gen[i]
#else
#define GEN(i) 0
#endif
#if MAXCRASH > 0
byte ncrash = 0;
#endif
#ifdef JOIN_RAW
bit fl[NREP]; bit fv[NREP];
#endif

inline beat_changes(rw) {        /* a renewal changed the row: every waiter will see a different beat */
  eqc[WI(0,rw)] = 0; eqc[WI(1,rw)] = 0;
#ifdef RENEW_ASYNC
  samev[rw] = 0;
#endif
#ifdef DBCLOCK
  dage[rw] = 0;
#endif
}

/* M := max committed; last_touching := last committed revision in (applied, M] that touches the principal (0 none) */
inline changes_after(i) {
  M = max_revision; last_touching = 0;
  if :: applied[i] < 1 && committed[1] && touched[1] -> last_touching = 1 :: else fi;
  if :: applied[i] < 2 && committed[2] && touched[2] -> last_touching = 2 :: else fi;
}

#ifdef LEASE_FROM_RECV
#define EXTEND(i) lease_age[i] = 0; sent_age[i] = NONE
#else
#define EXTEND(i) lease_age[i] = sent_age[i]; sent_age[i] = NONE
#endif

/* ---------------- (4)-(7) Replica: one thread, one connection ---------------- */
proctype replica(byte i) {
  byte M = 0; byte last_touching = 0; bit ren = 0;
idle:                                                       /* (5) Replica._follow */
  if
  :: d_step { !registered[i] -> sent_age[i] = 0 } goto enter
  :: d_step { registered[i] -> sent_age[i] = 0; ren = 1 } goto renew
  :: d_step { registered[i] && (max_revision > applied[i] || row_applied[ROW(i)] < applied[i]) -> ren = 0 } goto apply   /* NOTIFY wake-up: read and ack, no lease extension */
#if MAXRESTART > 0
  :: d_step { nrestart < MAXRESTART ->                     /* kill -9 and restart */
       nrestart++; gen[i] = 1 - gen[i]; FORGET(i); invalidated[i] = 0; applied[i] = 0;
       lease_age[i] = NONE; registered[i] = 0; row[ROW(i)] = 0; row_applied[ROW(i)] = 0 } goto idle
#endif
  fi;

enter:                                                      /* (4) Replica._register */
  if
  :: d_step { row[ROW(i)] = 1; row_applied[ROW(i)] = max_revision; beat_changes(ROW(i));
#ifdef REG_ASYNC
       pdur[ROW(i)] = 0;
#endif
     }
  :: d_step { sent_age[i] = NONE } goto idle               /* request lost */
  fi;
  if
  :: d_step { M = max_revision;                                  /* a second statement, after the INSERT has committed */
#ifndef NO_CLEAR
    FORGET(i);
#endif
#ifndef NO_FLOOR
    if :: OBS(i) -> invalidated[i] = M :: else fi;
#endif
#ifdef WITNESS
    registered_again = fenced_once;
#endif
    applied[i] = M; M = 0;
    registered[i] = 1; EXTEND(i);
    }
  :: d_step { sent_age[i] = NONE } goto idle               /* reply lost */
  fi;
  goto idle;

renew:                                                      /* (6) Replica.step, ReplicaSession.renew */
  if
  :: d_step { row[ROW(i)] -> row_applied[ROW(i)] = applied[i]; beat_changes(ROW(i)) }
  :: d_step { !row[ROW(i)] ->
#ifdef UPSERT
       row[ROW(i)] = 1; row_applied[ROW(i)] = applied[i]; beat_changes(ROW(i)) }
#else
       registered[i] = 0; sent_age[i] = NONE; ren = 0 } goto idle   /* 0 rows: fenced, register again */
#endif
  :: d_step { sent_age[i] = NONE; ren = 0 } goto idle      /* lost */
  fi;
#ifdef NO_CATCHUP
  d_step { EXTEND(i) }
#endif
apply:                                                      /* (5), and (6) again: Replica._apply */
  if
  :: d_step { changes_after(i) }
  :: d_step { sent_age[i] = NONE; ren = 0 } goto idle
  fi;
#ifdef ACK_FIRST
  if :: d_step { row[ROW(i)] -> row_applied[ROW(i)] = M } :: d_step { !row[ROW(i)] -> skip } fi;
#endif
  d_step {                                                  /* under the cache mutex */
    if :: last_touching > 0 ->
#ifndef NO_EVICT
         if :: !IS_NEWER(i,last_touching) -> FORGET(i) :: else fi;
#endif
         MARK(i,last_touching)
       :: else
    fi;
    if :: M > applied[i] -> applied[i] = M :: else fi;
    M = 0; last_touching = 0
  }
#ifndef NO_CATCHUP
  if
  :: d_step { ren -> EXTEND(i); ren = 0 }
  :: else
  fi;
#endif
  if
  :: d_step { row[ROW(i)] -> row_applied[ROW(i)] = applied[i]; ren = 0 }   /* ack */
  :: d_step { ren = 0 } goto idle
  fi;
  goto idle
}

/* ---------------- (9) CachedCapabilitySets._fill ---------------- */
proctype fill() {
  byte i = 0; byte R = 0; bit v = 0; bit g = 0;
#ifdef FULL
pick: if :: i = 0 :: i = 1 fi;
#endif
s:
#ifdef IN_FLIGHT
  if :: d_step { filling = 1; mark = 0 } fi;
#endif
#ifdef FILL_STALE                                           /* a standby that lags behind by one revision */
  if
  :: d_step { max_revision > 0 -> R = max_revision - 1; v = was; g = GEN(i) }
  :: d_step { R = max_revision; v = HOLDS; g = GEN(i) }
  fi;
#elif defined(FILL_R_AFTER)
  if :: d_step { v = HOLDS; g = GEN(i) } fi;
  d_step { R = max_revision }
#else
  if :: d_step { R = max_revision; v = HOLDS; g = GEN(i);          /* ONE snapshot */
#ifdef JOIN_RAW
    fl[i] = 1; fv[i] = v;
#endif
  } fi;
#endif
#ifdef FILL_NONATOMIC
  if :: d_step { g == GEN(i) && !DISCARD(i,R) -> skip } :: d_step { else -> R = 0; v = 0; g = 0 } goto s fi;
  d_step { if :: g == GEN(i) -> STORE(i,v,R) :: else fi; R = 0; v = 0; g = 0 }
#else
  d_step {                                                  /* under the cache mutex */
    if
#ifdef NO_DISCARD
    :: g == GEN(i) -> STORE(i,v,R)
#else
    :: g == GEN(i) && !DISCARD(i,R) && !IS_NEWER(i,R) -> STORE(i,v,R)
#endif
    :: else -> WIT(6, g == GEN(i))
    fi;
#ifdef JOIN_RAW
    fl[i] = 0; fv[i] = 0;
#endif
#ifdef IN_FLIGHT
    filling = 0; mark = 0;
#endif
    R = 0; v = 0; g = 0
  }
#endif
#ifdef FULL
  goto pick
#else
  goto s
#endif
}

/* ---------------- (8) CachedCapabilitySets.get; no database (10) answers nothing ---------------- */
#define lease_is_valid(i) (lease_age[i] < HOLDMAX)      /* slowest admissible local clock; giving up is always allowed */

inline answer(e) {
  if
  :: g == GEN(i) && e == 2 ->
       WIT(1, true); WIT(2, revoke_committed);
       assert(!sa);                              /* P1: no ALLOW to a request started after Revoke returned */
#ifdef ATOMIC
       assert(!dn);                              /* no new/old inversion (full atomicity) */
#endif
  :: g == GEN(i) && e == 1 ->
       WIT(3, sa); WIT(4, sa && !fenced_once && applied[i] == revoke_rev); WIT(5, sa && fenced_once && registered_again);
       assert(!(ga && !revoke_committed));       /* P2: a Grant/Delegate that returned is honoured */
#ifdef ATOMIC
       if :: revoke_committed -> deny_seen = 1 :: else fi
#endif
  :: else
  fi;
  sa = 0; ga = 0; dn = 0; g = 0
}

proctype authorize() {
  byte i = 0; bit sa = 0; bit ga = 0; bit dn = 0; bit g = 0; byte e = 0;
s:
#ifdef FULL
  if :: i = 0 :: i = 1 fi;
#endif
  if :: d_step { sa = revoke_returned; ga = grant_returned;
#ifdef ATOMIC
    dn = deny_seen;
#endif
    g = GEN(i) } fi;
#ifdef LOOKUP_FIRST
  d_step { e = entry[i] }
  if
  :: d_step { lease_is_valid(i) -> answer(e); e = 0 }
  :: d_step { sa = 0; ga = 0; dn = 0; g = 0; e = 0 }
  fi;
#else
  if
#ifdef NO_LEASE_CHECK
  :: skip
#else
  :: lease_is_valid(i)                                   /* samples the clock; SIGSTOP may follow */
#endif
  :: d_step { sa = 0; ga = 0; dn = 0; g = 0 } goto s
#ifdef JOIN_RAW
  :: d_step { fl[i] -> e = 1 + fv[i]; answer(e); e = 0 } goto s
#endif
  fi;
  d_step { e = entry[i]; answer(e); e = 0 }
#endif
  goto s
}

/* ---------------- (1)-(3) licet.apply_mutations, then (11) Observations.settle ---------------- */
proctype mutation(byte w) {
  byte r = 0; byte kind; bit sp = 0; bit sc = 0; bit already = 0; bit allok = 0; byte k = 0;
#ifdef WAITSET_BEFORE
  bit wait_set[NREP];
#endif
  if
  :: w == 0 -> kind = REVOKE
  :: w == 1 -> if :: child == 0 -> kind = DELEGATE :: true -> kind = REVOKE fi
  fi;

#ifdef RR_SNAPSHOT
  d_step { sp = (parent == 1); sc = (child == 1) }   /* REPEATABLE READ: snapshot taken by the lock statement, before it waits */
#endif
#ifndef NO_LOCK
  d_step { lock == 0 -> lock = w + 1 }                 /* (1) pg_advisory_xact_lock */
#endif
  d_step {                                           /* (1) revision allocated, state read */
    next_revision++; r = next_revision;
#ifndef RR_SNAPSHOT
    sp = (parent == 1); sc = (child == 1);
#endif
#ifdef WAITSET_BEFORE
    for (k : 0 .. NREP-1) { wait_set[k] = row[k] }
    k = 0;
#endif
  }
#ifdef UNLOCK_EARLY
  lock = 0;
#endif
  d_step {                                            /* (1) COMMIT: everything below becomes visible at once */
    if
    :: kind == REVOKE && sp ->
         REMEMBER; parent = 2; committed[r] = 1; revoke_rev = r; revoke_committed = 1;
#ifdef CHECKP
         touched[r] = 1;
#endif
         if :: sc -> child = 2;
#ifndef CHECKP
              touched[r] = 1
#endif
            :: else
         fi;
         if :: r > max_revision -> max_revision = r :: else fi
    :: kind == REVOKE && !sp ->                       /* (2) already_ended: wait for the revision that ended it */
         already = 1; r = revoke_rev; WIT(8, true);
#if !defined(NO_LOCK) && !defined(UNLOCK_EARLY)
         next_revision--
#endif
    :: kind == DELEGATE && sp ->
         REMEMBER; child = 1; committed[r] = 1;
#ifndef CHECKP
         touched[r] = 1;
#endif
         if :: r > max_revision -> max_revision = r :: else fi
    :: kind == DELEGATE && !sp ->                     /* PARENT_ENDED */
         kind = NOOPMUT; WIT(7, true);
#if !defined(NO_LOCK) && !defined(UNLOCK_EARLY)
         next_revision--
#endif
    fi;
#ifndef NO_ORPHAN_ASSERT
    assert(!(revoke_returned && child == 1));         /* no orphan of the cascade */
#endif
    sp = 0; sc = 0
  }
#if !defined(UNLOCK_EARLY) && !defined(NO_LOCK)
  lock = 0;                                           /* PostgreSQL: visible (ProcArrayEndTransaction) before locks are released */
#endif
  if :: kind == NOOPMUT -> goto done :: else fi;
#ifdef RETRY_NOWAIT
  if :: already -> goto ret :: else fi;
#endif
#ifdef GRANT_NOWAIT
  if :: kind == DELEGATE -> goto ret :: else fi;
#endif
#ifdef WAIT_NONE
  goto ret;
#endif
  do
  :: d_step {                                         /* (11) one look at the register, with the conditional fences */
       allok = 1; k = 0;
       do
       :: k < NREP ->
          if
#ifdef WAITSET_BEFORE
          :: !wait_set[k] -> skip
#endif
          :: else ->
          if
          :: row[k] && row_applied[k] < r ->
#ifdef DBCLOCK
             if :: dage[k] >= WAITT ->
#ifndef NO_FENCE
                   row[k] = 0; row_applied[k] = 0
#else
                   skip
#endif
                :: else -> allok = 0
             fi
#else
             if
             :: !wseen[WI(w,k)] || !eqc[WI(w,k)] ->
                  wseen[WI(w,k)] = 1; eqc[WI(w,k)] = 1; wage[WI(w,k)] = 0; allok = 0;
#ifdef RENEW_ASYNC
                  eqd[WI(w,k)] = samev[k];
#endif
             :: else ->
                  if
                  :: wage[WI(w,k)] >= WAITT ->
#ifndef NO_FENCE
#ifdef WITNESS
                     fenced_once = 1;
#endif
                     row[k] = 0; row_applied[k] = 0;  /* DELETE ... WHERE id=$ AND beat=$observed */
                     wseen[WI(w,k)] = 0; eqc[WI(w,k)] = 0; wage[WI(w,k)] = 0
#else
                     skip
#endif
                  :: else -> allok = 0
                  fi
             fi
#endif
#ifdef ONE_WATCHER
          :: row[k] && row_applied[k] >= r ->          /* it is observed all the same, for whoever waits next */
             if
             :: !wseen[WI(w,k)] || !eqc[WI(w,k)] -> wseen[WI(w,k)] = 1; eqc[WI(w,k)] = 1; wage[WI(w,k)] = 0
             :: else
             fi
#endif
          :: else -> wseen[WI(w,k)] = 0; eqc[WI(w,k)] = 0; wage[WI(w,k)] = 0
          fi
          fi;
          k++
       :: else -> break
       od;
       k = 0
     };
     if :: allok -> allok = 0; break :: else fi
  od;
ret:
  if :: d_step {
    WIT(9, kind == DELEGATE && revoke_committed); WIT(10, kind == REVOKE && child == 2 && lease_age[0] < HOLDMAX && applied[0] < r);
    if :: kind == REVOKE -> revoke_returned = 1
       :: kind == DELEGATE -> grant_returned = 1
    fi;
#ifndef NO_ORPHAN_ASSERT
    assert(!(revoke_returned && child == 1));
#endif
#ifndef ONE_WATCHER
    for (k : 0 .. NREP-1) { wseen[WI(w,k)] = 0; eqc[WI(w,k)] = 0; wage[WI(w,k)] = 0 }
#endif
    k = 0; r = 0; already = 0
  } fi;
done: skip
}

/* ---------------- time and faults ---------------- */
proctype passing() {
  byte k = 0;
s:
  if :: d_step {
    k = 0;
    do
    :: k < NREP ->
       if :: lease_age[k] < HOLDMAX -> lease_age[k]++ :: else fi;
       if :: sent_age[k] < HOLDMAX -> sent_age[k]++ :: else fi;
#ifdef DBCLOCK
       if :: dage[k] < WAITT -> dage[k]++ :: else fi;
#endif
       k++
    :: else -> break
    od;
    k = 0;
    do
    :: k < NMUT*NREP -> if :: wseen[k] && wage[k] < WAITT -> wage[k]++ :: else fi; k++
    :: else -> break
    od;
    k = 0
  } fi;
  goto s
}

#if MAXCRASH > 0
/* immediate PostgreSQL crash and recovery: asynchronously committed acks may be lost, all sessions break */
proctype postgres_crash() {
  byte k = 0;
s:
  if :: d_step { ncrash < MAXCRASH -> ncrash++; k = 0;
    do
    :: k < NREP ->
       row_applied[k] = 0;                              /* acks (synchronous_commit=off) lost: worst case all of them */
#ifdef REG_ASYNC
       if :: !pdur[k] -> row[k] = 0 :: else fi;
#endif
#ifdef RENEW_ASYNC
       eqc[WI(0,k)] = eqd[WI(0,k)]; eqc[WI(1,k)] = eqd[WI(1,k)]; samev[k] = 1;
#endif
       k++
    :: else -> break
    od;
    k = 0;
#ifndef NO_SESSION_RESTART
    do
    :: k < NMUT*NREP -> wseen[k] = 0; eqc[k] = 0; wage[k] = 0; k++
    :: else -> break
    od;
    k = 0
#endif
  } fi;
  goto s
}
#endif

#if defined(RENEW_ASYNC) || defined(REG_ASYNC)
proctype wal_writer() {
  byte k = 0;
s:
  if :: d_step { k = 0;
    do
    :: k < NREP ->
#ifdef RENEW_ASYNC
       samev[k] = 1; eqd[WI(0,k)] = eqc[WI(0,k)]; eqd[WI(1,k)] = eqc[WI(1,k)];
#endif
#ifdef REG_ASYNC
       pdur[k] = row[k];
#endif
       k++
    :: else -> break
    od; k = 0 } fi;
  goto s
}
#endif

#ifdef CLOCKJUMP
proctype clock_step() {                                     /* the DB wall clock is stepped forward once */
  byte k = 0;
  d_step {
    do
    :: k < NREP ->
#ifdef DBCLOCK
       dage[k] = WAITT;
#endif
       k++
    :: else -> break
    od }
}
#endif

init {
  byte k = 0;
  d_step {
    do :: k < NREP -> lease_age[k] = HOLDMAX; sent_age[k] = HOLDMAX; k++ :: else -> break od;
    k = 0
  }
#ifndef CHECKP
  if :: child = 0 :: child = 1 fi;
#endif
  atomic {
    run replica(0);
#if NREP > 1
    run replica(1);
#endif
    run fill(); run authorize();
    run mutation(0);
#ifndef ONE_MUT
    run mutation(1);
#endif
    run passing();
#if MAXCRASH > 0
    run postgres_crash();
#endif
#if defined(RENEW_ASYNC) || defined(REG_ASYNC)
    run wal_writer();
#endif
#ifdef CLOCKJUMP
    run clock_step();
#endif
  }
}
