/*
 * Sub-leases: a cache in a client, fed by an ordered stream from its replica. A DESIGN ONLY: licet has no such
 * cache; the model says what one would have to do. The replica's own lease and whoever waits for it are those of
 * revocation.pml, reduced; its step (11) is `revoker`, its steps (4) to (6) are `sync`.
 *
 *   N1  a sub-lease runs from the client's SEND of its keep-alive, for at most SUB ticks          -DSUB_FROM_RECV
 *   N2  the replica gives one only if it ends before the replica's own lease, by the same clock   -DNO_NEST
 *   N3  the replica evicts at once, and acknowledges a revision only after every client that may
 *       hold a touched principal has confirmed it, or its sub-lease has certainly ended           -DACK_NOHOLD
 *   N4  entries and invalidations travel on one ordered stream, queued under the cache's mutex    -DUNORDERED
 *   N5  sub-leases travel on that stream too, behind the invalidations: on a call of its own, one
 *       would reach a client whose sub-lease had lapsed before an invalidation that is queued     -DGRANT_ASIDE
 *   N6  each names the keep-alive that it answers; others are ignored                             -DNO_MATCH
 *   N7  a replica that registers again resets the stream, and the client forgets everything       -DNO_RESET
 * The switch on the right removes the rule.
 */
#ifndef HOLDMAX
#define HOLDMAX 2
#endif
#define WAITT HOLDMAX
#ifndef SUB
#define SUB 1
#endif
#ifdef GRANT_ASIDE
#define SENDGRANT kr!0; ngrant++
#define ROOM len(kr) < 1
#define SETG skip
#else
#define SENDGRANT st!GRANT,0; ngrant++
#define ROOM len(st) < 3
#define SETG ngrant = 0; nstale = 0
#endif
bit committed = 0; bit revoke_returned = 0;
/* replica */
bit hasrow = 0; bit row = 0; byte lease_age = HOLDMAX; byte pend_age = HOLDMAX;
bit applied = 0; bit rowapplied = 0; bit inval_applied = 0;
byte rentry = 0;           /* replica cache 0/1 no/2 yes */
byte grant_age = SUB;      /* ticks since the replica last granted the client a sub-lease, saturating */
bit client_acked = 0;      /* client confirmed the invalidation */
/* waiter */
bit wseen = 0; bit eq = 0; byte wage = 0;
/* client */
byte centry = 0; byte c_age = SUB; byte cp_age = SUB; 
mtype = { ENTRY, INVAL, GRANT, RESET };
chan st = [3] of { mtype, byte };
bit ka = 0;        /* keep-alive request in flight (a newer one supersedes it: ids are unique) */
byte ngrant = 0; byte nstale = 0;   /* grants in flight; how many of them answer an older keep-alive */
chan kr = [1] of { byte };       /* keep-alive reply: granted sub-lease allowance already used up (nesting) */
chan ca = [1] of { bit };        /* client's ack of INVAL */

proctype sync() {
  bit M = 0;
  do
  :: d_step { !hasrow -> pend_age = 0 };
     if
     :: d_step { row = 1; rowapplied = 0; eq = 0 };
        d_step {
#ifndef NO_RESET
                 do :: len(st) > 0 -> st?_,_ :: else -> break od; SETG; st!RESET,0;
#endif
                 rentry = 0; applied = committed; inval_applied = committed; hasrow = 1; lease_age = pend_age; pend_age = HOLDMAX;
                 /* a re-registration is a new incarnation: every sub-lease given before is out of date, the stream is cut */
                 client_acked = 0 }
     :: pend_age = HOLDMAX
     fi
  :: d_step { hasrow -> pend_age = 0 };
     if
     :: d_step { row -> eq = 0 };
        M = committed;
        d_step { nfull(st) -> if :: M && !applied -> applied = 1; rentry = 0; inval_applied = 1; st!INVAL,0
                    :: else fi; M = 0;
                 lease_age = pend_age; pend_age = HOLDMAX }
     :: d_step { !row -> hasrow = 0; pend_age = HOLDMAX }
     :: pend_age = HOLDMAX
     fi
  :: /* ack */
#ifdef ACK_NOHOLD
     d_step { hasrow && row && applied -> rowapplied = 1 }
#else
     d_step { hasrow && row && applied && (client_acked || grant_age >= SUB) -> rowapplied = 1 }
#endif
  od
}
proctype fill() {           /* the replica's own fill race is the subject of revocation.pml; here a fill is one step */
  do
  :: d_step { rentry == 0 && committed -> rentry = 1 }
  :: d_step { rentry == 0 && !committed -> rentry = 2 }
  od
}
proctype serve_client() {   /* replica side of the stream */
  do
  :: d_step { lease_age < HOLDMAX && rentry > 0 && len(st) < 2 -> 
#ifdef UNORDERED
       skip }; 
     byte e; d_step { e = rentry }; if :: d_step { nfull(st) && e > 0 -> st!ENTRY,e; e = 0 } :: e = 0 fi
#else
       st!ENTRY,rentry }
#endif
  :: d_step { ka -> ka = 0;
       if
#ifdef NO_NEST
       :: lease_age < HOLDMAX && ROOM -> SENDGRANT; grant_age = 0
#else
       :: lease_age + SUB <= HOLDMAX && ROOM -> SENDGRANT; grant_age = 0       /* ends before our own lease, whatever the drift */
#endif
       :: else -> skip
       fi }
  :: d_step { ca?[_] -> ca?_; if :: applied -> client_acked = 1 :: else fi }
  od
}
proctype client() {
  byte e;
  do
  :: d_step { cp_age >= SUB -> ka = 1; cp_age = 0; nstale = ngrant }
#ifdef GRANT_ASIDE
  :: d_step { kr?[_] -> kr?e;
#else
  :: d_step { st?[GRANT,_] -> st?GRANT,e;
#endif
#ifndef NO_MATCH
     ngrant--; if :: nstale > 0 -> nstale--; goto skipgrant :: else fi;
#else
     ngrant--; if :: nstale > 0 -> nstale-- :: else fi;
#endif
#ifdef SUB_FROM_RECV
       c_age = 0;
#else
       c_age = cp_age;
#endif
       cp_age = SUB; nstale = ngrant; e = 0;
skipgrant: skip }
  :: d_step { st?[RESET,_] -> st?RESET,e; centry = 0; c_age = SUB; cp_age = SUB; ka = 0; nstale = ngrant }
  :: d_step { st?[ENTRY,_] -> st?ENTRY,e; centry = e; e = 0 }
  :: d_step { st?[INVAL,_] && nfull(ca) -> st?INVAL,e; centry = 0; ca!1; e = 0 }
  od
}
proctype use() {
  bit sa;
  do
  :: d_step { sa = revoke_returned };
     if
     :: c_age < SUB -> d_step { assert(!(sa && centry == 2)); sa = 0 }
     :: lease_age < HOLDMAX -> d_step { assert(!(sa && rentry == 2)); sa = 0 }
     :: sa = 0
     fi
  od
}
proctype revoker() {
  bit ok = 0;
  committed = 1;
  do
  :: d_step {
       if
       :: row && !rowapplied ->
          if :: !wseen || !eq -> wseen = 1; eq = 1; wage = 0
             :: else -> if :: wage >= WAITT -> row = 0; ok = 1 :: else fi
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
    if :: grant_age < SUB -> grant_age++ :: else fi;
    if :: c_age < SUB -> c_age++ :: else fi;
    if :: cp_age < SUB -> cp_age++ :: else fi;
    if :: wseen && wage < WAITT -> wage++ :: else fi } od }
init { atomic { run sync(); run fill(); run serve_client(); run client(); run use(); run revoker(); run tick() } }
