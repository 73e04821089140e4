/*
 * Failover with a split brain: a standby is promoted while the old primary lives and one replica stays connected to
 * it. Replication is synchronous, so a commit on the old primary that waits for the standby can only succeed before
 * the promotion. `replica0` is steps (4) and (6) of replica/coherence.py, `auth` is step (8), `revoker` is step (11)
 * on the new primary. The rules, and the switch that removes each:
 *
 *   F1  renewals wait for the standby                                                             -DRENEW_LOCAL
 *   F2  a commit whose wait was cancelled (a WARNING, not an error) does not count                -DCANCEL_IS_OK
 *   F3  without a lease nothing is read from a primary that may be an old one                     -DDIRECT_OLD
 *
 * licet keeps none of them: its renewals commit asynchronously, and a replica without a lease reads
 * the database it is connected to. Its promise holds for one primary at a time; fencing the old primary before the
 * standby is promoted is the operator's task.
 */
#define HOLDMAX 2
#define WAITT HOLDMAX
bit promoted = 0;
bit revoked_new = 0;        /* Revoke committed on the new primary */
bit revoke_returned = 0;
byte lease_age = HOLDMAX; byte pend_age = HOLDMAX;
bit hasrow = 0;
bit row_new = 0;            /* replica 0's row exists on the new primary (replicated) */
byte applied_new = 0;
bit row_old = 0;
bit eq = 0; byte wage = 0; bit wseen = 0;
bit cached = 0;             /* replica 0 caches "yes" */

proctype replica0() {       /* stays connected to O for ever: the worst case */
  do
  :: d_step { !hasrow -> pend_age = 0 };
     if
     :: d_step { row_old = 1; if :: !promoted -> row_new = 1; eq = 0 :: else fi };
        if
        :: !promoted -> d_step { hasrow = 1; lease_age = pend_age; pend_age = HOLDMAX; cached = 1 }
#if defined(RENEW_LOCAL)
        :: d_step { hasrow = 1; lease_age = pend_age; pend_age = HOLDMAX; cached = 1 }
#endif
        :: pend_age = HOLDMAX
        fi
     :: pend_age = HOLDMAX
     fi
  :: d_step { hasrow -> pend_age = 0 };
     if
     :: d_step { if :: !promoted -> if :: row_new -> eq = 0 :: else fi :: else fi };     /* executed on O; replicated if the link is up */
        if
        :: !promoted -> d_step { lease_age = pend_age; pend_age = HOLDMAX }      /* the standby confirmed: it was still a standby */
#if defined(RENEW_LOCAL) || defined(CANCEL_IS_OK)
        :: d_step { lease_age = pend_age; pend_age = HOLDMAX }
#endif
        :: pend_age = HOLDMAX
        fi
     :: pend_age = HOLDMAX
     fi
  od
}
proctype auth() {
  bit sa;
  do
  :: d_step { sa = revoke_returned };
     if
     :: lease_age < HOLDMAX -> d_step { assert(!(cached && sa)); sa = 0 }
#ifdef DIRECT_OLD
     :: lease_age >= HOLDMAX -> d_step { assert(!sa); sa = 0 }     /* O still says "active" */
#endif
     :: sa = 0
     fi
  od
}
proctype promote() { d_step { promoted = 1 } }
proctype revoker() {
  bit ok = 0;
  promoted;
  d_step { revoked_new = 1 };
  do
  :: d_step {
       if
       :: row_new ->
          if :: !wseen || !eq -> wseen = 1; eq = 1; wage = 0
             :: else -> if :: wage >= WAITT -> row_new = 0; ok = 1 :: else fi
          fi
       :: else -> ok = 1
       fi };
     if :: ok -> break :: else fi
  od;
  revoke_returned = 1
}
proctype tick() { do :: d_step {
    if :: lease_age < HOLDMAX -> lease_age++ :: else fi;
    if :: pend_age < HOLDMAX -> pend_age++ :: else fi;
    if :: wseen && wage < WAITT -> wage++ :: else fi } od }
init { atomic { run replica0(); run auth(); run promote(); run revoker(); run tick() } }
