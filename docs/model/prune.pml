/*
 * The protocol of writing and deleting, as docs/protocol.md tells it, for spin.
 *
 * One chunk is enough: every snapshot needs it, and it lies in up to four bundles. Bundle 0 is that
 * of snapshot 0, which both hosts take for their parent; bundles 1 and 2 are what backup 1 and 2
 * pack where they find nothing to rely on; bundle 3 is what a rewrite makes. A segment line for the
 * chunk stands in each index object that tells of a bundle, so "lines" below is a set of bundles:
 * the alternatives.
 *
 * Every statement that touches the store is one step, and between any two steps everybody else may
 * do anything: a process that is never scheduled again has crashed, one that is scheduled late is
 * slow. Sets are bit masks.
 *
 * Time: `...past` says of a record that a grace period has gone by since it was put. That may
 * happen at any moment. What a writer does with a view younger than half the grace period happens,
 * by arithmetic, before any record that the view does not know is past: IN_TIME.
 */

#ifndef BACKUPS
#define BACKUPS 2
#endif
#ifndef PRUNES
#define PRUNES 2
#endif
/* How many commits may arrive although they are out of time; with LATE_LINES, index objects of
 * backups among them. */
#ifndef LATE
#define LATE 1
#endif

#define BIT(n) (1 << (n))
#define HAS(set, n) (((set) >> (n)) & 1)

/* ---- the store ---- */

byte bundles = 1;            /* bundles that are there */
byte index_there = 1;        /* index objects that are there */
byte lines[8];               /* what each tells of; never changed once it is there */
byte snapshots = 1;
byte seen[3];                /* condemned records that the run of a snapshot had seen */
byte late;                   /* snapshots that were committed out of time */
bit forgotten, forgotten_past;   /* the record that forgets snapshot 0 */
byte condemned;              /* condemned records that are there, one for each prune */
byte condemned_past;
byte ever;                   /* condemned records that were ever put: for the ages of views */
byte condemns[2], replaces[2];   /* the bundles and index objects that each names */
byte deleting;               /* records in state deleting that are there, one for each prune */
byte deleting_past;
byte of_records[2], of_snapshots[2];  /* the condemned records and the snapshots that each names */
byte lease[3];               /* bundles that each run's lease names */
byte late_left = LATE;
#ifdef LEASES
bit looked;                  /* whether any prune has begun to look */
#endif
#ifdef REWRITE
bit rewritten;               /* whether bundle 0 has been rewritten */
#endif
/* Backups are alike, and so are prunes: without loss the first of each is the one that begins
 * first. */
bit backup_begun, prune_begun;
#ifdef HALF
#define MAY_BEGIN 1          /* two prunes that are not alike */
#else
#define MAY_BEGIN (me == 0 || prune_begun)
#endif

/* Index objects: 0 of snapshot 0, 1 and 2 of the backups, 3 of the rewrite, 4 and 5 of merges, 6 and
 * 7 of delete phases. */
#define LINES(set) ( \
    (HAS(set, 0) * lines[0]) | (HAS(set, 1) * lines[1]) | (HAS(set, 2) * lines[2]) | \
    (HAS(set, 3) * lines[3]) | (HAS(set, 4) * lines[4]) | (HAS(set, 5) * lines[5]) | \
    (HAS(set, 6) * lines[6]) | (HAS(set, 7) * lines[7]))
#define CONDEMNED(set) ((HAS(set, 0) * condemns[0]) | (HAS(set, 1) * condemns[1]))

/* What is condemned under `p`'s record in state deleting, as snapshot `s` has to fear it. */
#define FEARED(p, s) ((HAS(deleting, p) && !HAS(of_snapshots[p], s)) * \
    CONDEMNED(of_records[p] & condemned & ~seen[s]))
#define GONE(s) (FEARED(0, s) | FEARED(1, s))

/* A snapshot is listed, and shown as complete, and can it then be restored? It is complete where the
 * index has a line for what it needs whose bundles it has not to fear for. Where the index tells
 * nothing it is not, whatever records there are. */
#define LISTED(s) (HAS(snapshots, s) && !((s) == 0 && forgotten))
#if defined(NO_FENCE)
#define COMPLETE(s) 1
#elif defined(INDEX_ALONE)
#define COMPLETE(s) (LINES(index_there) != 0)
#elif defined(RECORDS_ALONE)
#define COMPLETE(s) ((LINES(index_there) == 0) || (LINES(index_there) & ~GONE(s)) != 0)
#else
#define COMPLETE(s) ((LINES(index_there) & ~GONE(s)) != 0)
#endif
#define WHOLE(s) ((LINES(index_there) & bundles) != 0)

#define RECOVERABLE(s) (!LISTED(s) || !COMPLETE(s) || WHOLE(s))
/* What was committed in time is never shown as incomplete. */
#define KEPT(s) (!LISTED(s) || HAS(late, s) || COMPLETE(s))

/* Each assertion by its name, which spin prints. A check that is about one of them leaves out the
 * others, since another could fail first. */
#ifdef ONLY_RESTORABLE
#define ASSERTS_KEPT 0
#define ASSERTS_LEASED 0
#elif defined(ONLY_KEPT)
#define ASSERTS_RESTORABLE 0
#define ASSERTS_LEASED 0
#elif defined(ONLY_LEASED)
#define ASSERTS_RESTORABLE 0
#define ASSERTS_KEPT 0
#endif
#ifndef ASSERTS_RESTORABLE
#define ASSERTS_RESTORABLE 1
#endif
#ifndef ASSERTS_KEPT
#define ASSERTS_KEPT 1
#endif
#ifndef ASSERTS_LEASED
#define ASSERTS_LEASED 1
#endif
hidden byte restorable, kept, leased;   /* never anything but 0: what they stand for has failed */

proctype Monitor() {
    do
    :: atomic { ASSERTS_RESTORABLE && !(RECOVERABLE(0) && RECOVERABLE(1) && RECOVERABLE(2)) ->
        printf("a snapshot that is listed and complete cannot be restored\n"); assert(restorable) }
    :: atomic { ASSERTS_KEPT && !(KEPT(0) && KEPT(1) && KEPT(2)) ->
        printf("a snapshot that was committed in time is incomplete\n"); assert(kept) }
    od
}

/* A grace period goes by. */
proctype Time() {
    do
    :: atomic { (condemned & ~condemned_past & 1) -> condemned_past = condemned_past | 1 }
    :: atomic { (condemned & ~condemned_past & 2) -> condemned_past = condemned_past | 2 }
    :: atomic { (deleting & ~deleting_past & 1) -> deleting_past = deleting_past | 1 }
    :: atomic { (deleting & ~deleting_past & 2) -> deleting_past = deleting_past | 2 }
    :: atomic { (forgotten && !forgotten_past) -> forgotten_past = 1 }
    od
}

/* No record is past that was put after the view: `view` is `ever` as it was then, since a record that
 * had gone before the view says nothing of the view's age. */
#define IN_TIME(view) ((condemned_past & ~(view)) == 0)

proctype Forget() {
    atomic { HAS(snapshots, 0) -> forgotten = 1 }
}

/* ---- a backup ---- */

#define PUT_LINES lines[me] = BIT(me); index_there = index_there | BIT(me)

proctype Backup(byte me) {
    byte saw, since, saw_bundles, told, use, now;
    bit made, leased_early;

    /* The look: condemned records, then bundles, then the index. */
    atomic { (me == 1 || backup_begun) -> backup_begun = 1; saw = condemned; since = ever; now = CONDEMNED(condemned) }
    saw_bundles = bundles;
#ifdef PAGED
    atomic { told = LINES(index_there & 7) }
    atomic { told = told | LINES(index_there & ~7) }
#else
    atomic { told = LINES(index_there) }
#endif
    atomic {
#ifdef NO_FINALITY
        told = told & saw_bundles;
#else
        told = told & saw_bundles & ~now;
#endif
        saw_bundles = 0;
        now = 0;
        if
        :: HAS(told, 0) -> use = 1
        :: HAS(told, 1) -> use = 2
        :: HAS(told, 2) -> use = 4
        :: HAS(told, 3) -> use = 8
        :: told == 0 -> use = BIT(me); made = 1
        fi;
        told = 0
    }
#ifdef SNAPSHOT_FIRST
    atomic { IN_TIME(since) -> snapshots = snapshots | BIT(me); seen[me] = saw }
#endif
    if
    :: made ->
#ifndef INDEX_FIRST
        atomic { bundles = bundles | BIT(me) }
#endif
        /* Lines of what has gone meanwhile would make others look whole: they are put in time, or
         * after another look. */
        if
#ifdef NO_LINE_RULE
        :: atomic { PUT_LINES }
#else
        :: atomic { IN_TIME(since) -> PUT_LINES }
        :: atomic { !IN_TIME(since) -> saw = condemned; since = ever; now = CONDEMNED(condemned) }
            atomic {
                if
                :: (now & use) || !(bundles & use) ->
                    goto end     /* nothing is put; the sources are gone over again */
                :: else -> now = 0
                fi
            }
            if
            :: atomic { IN_TIME(since) -> PUT_LINES }
#ifdef LATE_LINES
            :: atomic { !IN_TIME(since) && late_left > 0 -> late_left--; PUT_LINES }
#endif
            :: atomic { !IN_TIME(since) -> goto end }
            fi
#ifdef LATE_LINES
        :: atomic { !IN_TIME(since) && late_left > 0 -> late_left--; PUT_LINES }
#endif
#endif
        fi;
#ifdef INDEX_FIRST
        atomic { bundles = bundles | BIT(me) }
#endif
    :: else
    fi;
#ifndef SNAPSHOT_FIRST
#ifdef LEASES
    if
    :: atomic {
        lease[me] = use;
        /* Nobody has looked yet, so whoever looks finds the lease. */
        leased_early = (looked == 0)
    }
    :: skip
    fi;
#endif
    /* The commit rule. */
#ifndef NO_COMMIT_RULE
    if
    :: atomic { IN_TIME(since) -> skip }
    :: atomic { !IN_TIME(since) -> saw = condemned; since = ever; now = CONDEMNED(condemned) }
        atomic {
            if
            :: (now & use) || !(bundles & use) ->
                if
                :: ASSERTS_LEASED && leased_early ->
                    printf("what a run had named is gone or condemned\n"); assert(leased)
                :: else
                fi;
                goto end     /* go over the sources again: another backup */
            :: else -> now = 0
            fi
        }
    fi;
#endif
    if
#ifdef NO_COMMIT_RULE
    :: atomic { snapshots = snapshots | BIT(me); seen[me] = saw }
#else
    :: atomic { IN_TIME(since) ->
        if
        :: ASSERTS_LEASED && leased_early && !(bundles & use) ->
            printf("what a run had named is gone\n"); assert(leased)
        :: else
        fi;
        snapshots = snapshots | BIT(me); seen[me] = saw }
    :: atomic { !IN_TIME(since) && late_left > 0 ->
        late_left--; late = late | BIT(me); snapshots = snapshots | BIT(me); seen[me] = saw }
    :: atomic { !IN_TIME(since) && late_left == 0 -> goto end }
#endif
    fi;
    atomic { lease[me] = 0 };
#endif
end:
    skip
}

/* ---- a prune ---- */

#ifdef NO_LEASE
#define LEASED 0
#else
#define LEASED (lease[1] | lease[2])
#endif

/* What `p`'s view says is needed, given the snapshots that count; `clean` is any one alternative that
 * is there and condemned by nobody, and where there is none everything that is there is needed. */
inline choose(counting, told, there, cond, need) {
    if
    :: counting == 0 -> need = 0
    :: else ->
        if
#ifdef NO_TWO_COPIES
        :: (told & there & 1) -> need = 1
        :: (told & there & 2) -> need = 2
        :: (told & there & 4) -> need = 4
        :: (told & there & 8) -> need = 8
        :: !(told & there) -> need = 0
#else
        :: (told & there & ~(cond) & 1) -> need = 1
        :: (told & there & ~(cond) & 2) -> need = 2
        :: (told & there & ~(cond) & 4) -> need = 4
        :: (told & there & ~(cond) & 8) -> need = 8
        :: !(told & there & ~(cond)) -> need = told & there
#endif
        fi
    fi
}

inline look() {
    /* Condemned records first: what is past by then cannot be used by a snapshot that comes later
     * in time. Then leases, snapshots and what was forgotten, the index, the bundles. */
    atomic { MAY_BEGIN -> prune_begun = 1;
        v_condemned = condemned; v_ever = ever; v_past = condemned_past & condemned;
        v_deleting = deleting & ~BIT(me);
#ifdef LEASES
        looked = 1
#endif
    }
#ifdef LEASES
    v_leased = LEASED;
#endif
    atomic { v_snapshots = snapshots;
        if :: forgotten && forgotten_past -> v_snapshots = v_snapshots & ~1; v_expired = 1
        :: else fi }
#ifdef PAGED
    v_index = index_there & 15;
    v_index = v_index | (index_there & ~15);
#else
    v_index = index_there;
#endif
}

/* A snapshot of which the index does not tell: stop. */
inline fail_closed() {
#ifndef NO_FAIL_CLOSED
    if
    :: v_snapshots != 0 && v_told == 0 -> goto stop
    :: else
    fi
#else
    skip
#endif
}

/* The steps of a delete phase; within one, in any order. */
inline put_new_index() {
    atomic {
        if
        :: fresh == 0
        :: fresh != 0 && !(IN_TIME(v_ever) && !HAS(deleting_past, me)) -> goto stop
        :: else ->
            lines[6 + me] = fresh; index_there = index_there | BIT(6 + me); fresh = 0
        fi;
        v_condemned = 0; v_ever = 0
    }
}

inline delete_old_index() {
    do
    :: old == 0 -> break
    :: atomic { HAS(old, 0) -> index_there = index_there & ~1; old = old & ~1 }
    :: atomic { HAS(old, 1) -> index_there = index_there & ~2; old = old & ~2 }
    :: atomic { HAS(old, 2) -> index_there = index_there & ~4; old = old & ~4 }
    :: atomic { HAS(old, 3) -> index_there = index_there & ~8; old = old & ~8 }
    :: atomic { HAS(old, 4) -> index_there = index_there & ~16; old = old & ~16 }
    :: atomic { HAS(old, 5) -> index_there = index_there & ~32; old = old & ~32 }
    :: atomic { HAS(old, 6) -> index_there = index_there & ~64; old = old & ~64 }
    :: atomic { HAS(old, 7) -> index_there = index_there & ~128; old = old & ~128 }
    od
}

inline delete_bundles() {
    do
    :: doomed == 0 -> break
    :: atomic { HAS(doomed, 0) -> bundles = bundles & ~1; doomed = doomed & ~1 }
    :: atomic { HAS(doomed, 1) -> bundles = bundles & ~2; doomed = doomed & ~2 }
    :: atomic { HAS(doomed, 2) -> bundles = bundles & ~4; doomed = doomed & ~4 }
    :: atomic { HAS(doomed, 3) -> bundles = bundles & ~8; doomed = doomed & ~8 }
    od
}

proctype Prune(byte me) {
    byte v_condemned, v_ever, v_past, v_deleting, v_leased, v_snapshots, v_index, v_bundles, v_told;
    byte need, doomed, due, fresh, old;
    bit v_expired;

    /* First phase: condemn. */
    look();
    atomic {
        v_bundles = bundles; v_told = LINES(v_index);
        fail_closed();
        choose(v_snapshots, v_told, v_bundles, CONDEMNED(v_condemned), need);
        doomed = v_bundles & ~need & ~v_leased & ~CONDEMNED(v_condemned);
        v_bundles = 0; v_told = 0; v_snapshots = 0; v_past = 0; v_deleting = 0;
#ifndef REWRITE
        need = 0; v_leased = 0;
#endif
#ifndef MERGE
        v_index = 0;
#ifndef REWRITE
        v_condemned = 0;
#endif
#endif
    }
#ifdef REWRITE
    /* With the owner's identity: what is needed of bundle 0 is sealed into a new one, by whichever
     * prune comes to it first. The old one is left where a lease names it: to a run it is as good as
     * needed. Before it is condemned the new one has to be there and condemned by nobody. */
    if
    :: atomic { !rewritten && HAS(need, 0) && !HAS(v_leased | CONDEMNED(v_condemned), 0) ->
            rewritten = 1; bundles = bundles | 8 };
        if
        :: atomic { IN_TIME(v_ever) -> lines[3] = 8; index_there = index_there | 8 }
        :: !IN_TIME(v_ever) -> goto stop
        fi;
#ifdef NO_TWO_COPIES
        doomed = doomed | 1
#else
        fresh = CONDEMNED(condemned);
        atomic { if
            :: !(fresh & 8) && (bundles & 8) -> doomed = doomed | 1
            :: else
            fi; fresh = 0 }
#endif
    :: true
    fi;
#endif
#ifdef MERGE
    /* Index objects that name nothing condemned are merged, and the old ones condemned. */
    if
    :: true ->
        atomic {
            fresh = 0; old = 0;
            if :: HAS(v_index, 0) && !(lines[0] & CONDEMNED(v_condemned)) -> old = old | 1 :: else fi;
            if :: HAS(v_index, 1) && !(lines[1] & CONDEMNED(v_condemned)) -> old = old | 2 :: else fi;
            if :: HAS(v_index, 2) && !(lines[2] & CONDEMNED(v_condemned)) -> old = old | 4 :: else fi;
            if :: HAS(v_index, 3) && !(lines[3] & CONDEMNED(v_condemned)) -> old = old | 8 :: else fi;
            fresh = LINES(old);
        }
        if
        :: fresh == 0 -> old = 0
        :: fresh != 0 && IN_TIME(v_ever) ->
            atomic { IN_TIME(v_ever) ->
                lines[4 + me] = fresh; index_there = index_there | BIT(4 + me) }
        :: fresh != 0 && !IN_TIME(v_ever) -> goto stop
        fi
    :: true -> old = 0
    fi;
#endif
    if
    :: doomed == 0 && old == 0
    :: else ->
        atomic { condemns[me] = doomed; replaces[me] = old; condemned = condemned | BIT(me);
            ever = ever | BIT(me); v_ever = 0;
            need = 0; doomed = 0; fresh = 0; old = 0; v_index = 0; v_condemned = 0;
            v_leased = 0 }
    fi;

#ifdef HALF
    /* The first of two prunes ends here; what it has condemned the second one deletes. */
    if
    :: me == 0 -> goto stop
    :: else
    fi;
#endif

    /* Second phase: delete. */
    look();
    atomic {
        v_bundles = bundles; v_told = LINES(v_index);
        fail_closed();
        /* Due is what is past its grace period, or what another has begun to delete. */
        due = v_past;
        if :: HAS(v_deleting, 1 - me) -> due = due | (of_records[1 - me] & v_condemned) :: else fi;
        choose(v_snapshots, v_told, v_bundles, CONDEMNED(v_condemned), need);
        need = need | v_leased;
        doomed = 0;
        if
        :: HAS(due, 0) ->
            doomed = condemns[0] & ~need;
        :: else
        fi;
        if
        :: HAS(due, 1) ->
            doomed = doomed | (condemns[1] & ~need);
        :: else
        fi;
#ifndef NO_ANNOUNCE
        if
        :: HAS(v_deleting, 1 - me) ->
            /* What the other's phase had not seen it may be deleting now. */
            choose((v_snapshots & of_snapshots[1 - me]), v_told, v_bundles,
                CONDEMNED(v_condemned), fresh);
            fresh = fresh | v_leased;
            doomed = doomed | (CONDEMNED(of_records[1 - me] & due) & ~fresh);
            fresh = 0
        :: else
        fi;
#endif
        if
        :: HAS(due, 0) -> old = old | (replaces[0] & v_index)
        :: else
        fi;
        if
        :: HAS(due, 1) -> old = old | (replaces[1] & v_index)
        :: else
        fi;
        need = 0; v_told = 0; v_leased = 0; v_past = 0; v_bundles = 0;
        if
        :: due == 0 -> v_condemned = 0; v_index = 0; goto snapshot_records
        :: else
        fi
    }
    if
    :: doomed == 0 && old == 0 -> goto records
    :: else
    fi;
    /* The announcement, and a look whether anybody else has made one. Of the index those objects go
     * that name what is doomed; what else they tell is put into a new one. */
    atomic {
        of_records[me] = due; of_snapshots[me] = v_snapshots; deleting = deleting | BIT(me);
        fresh = 0;
        do
        :: fresh < 8 ->
            if
            :: HAS(v_index, fresh) && (lines[fresh] & doomed) && !HAS(old, fresh) ->
                need = need | BIT(fresh)
            :: else
            fi;
            fresh++
        :: else -> break
        od;
        fresh = LINES(need) & ~doomed;
        old = old | need; need = 0; v_index = 0
    };
#ifndef NO_ANNOUNCE
    if
    :: atomic { (v_condemned & ~condemned) || (deleting & ~v_deleting & ~BIT(me)) ->
        v_deleting = 0 }
        deleting = deleting & ~BIT(me);
        goto stop
    :: else
    fi;
#endif
#ifdef RECORDS_FIRST
    condemned = condemned & ~due;
    deleting = deleting & ~BIT(me);
#endif
    /* New index objects, old index objects, bundles, records. */
#if defined(OLD_INDEX_FIRST)
    delete_old_index();
    put_new_index();
    delete_bundles();
#elif defined(BUNDLES_FIRST)
    put_new_index();
    delete_bundles();
    delete_old_index();
#else
    put_new_index();
    delete_old_index();
    delete_bundles();
#endif
records:
    /* The records go when nothing that they name is left and nobody else is deleting. */
#ifndef RECORDS_FIRST
    atomic {
        v_deleting = deleting & ~BIT(me);
#ifndef NO_ANNOUNCE
        if
        :: v_deleting & ~deleting_past -> goto snapshot_records
        :: else
        fi
#endif
    }
    atomic { v_index = index_there; v_told = LINES(v_index) }
    atomic {
        v_bundles = bundles | v_told;
        need = due & condemned;
        if :: HAS(need, 0) && ((condemns[0] & v_bundles) || (replaces[0] & v_index))
            -> need = need & ~1 :: else fi;
        if :: HAS(need, 1) && ((condemns[1] & v_bundles) || (replaces[1] & v_index))
            -> need = need & ~2 :: else fi;
        v_bundles = 0; v_index = 0; v_told = 0;
    }
    atomic { condemned = condemned & ~need; need = 0 }
    atomic {
        if :: !(of_records[me] & condemned) -> deleting = deleting & ~BIT(me) :: else fi;
        if :: HAS(v_deleting, 1 - me) && !(of_records[1 - me] & condemned) ->
            deleting = deleting & ~BIT(1 - me) :: else fi;
        due = 0
    };
#endif
snapshot_records:
    if
    :: v_expired -> snapshots = snapshots & ~1; atomic { forgotten = 0; v_expired = 0 }
    :: else
    fi;
stop:
    atomic { need = 0; doomed = 0; due = 0; fresh = 0; old = 0; v_condemned = 0; v_ever = 0; v_past = 0;
        v_deleting = 0; v_leased = 0; v_snapshots = 0; v_index = 0; v_bundles = 0; v_told = 0;
        v_expired = 0 }
}

init {
    atomic {
        lines[0] = 1;
        run Monitor();
        run Time();
        run Forget();
        run Backup(1);
#if BACKUPS > 1
        run Backup(2);
#endif
        run Prune(0);
#if PRUNES > 1
        run Prune(1);
#endif
    }
}
