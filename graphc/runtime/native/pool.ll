; The thread pool and the session lock.
;
; A job is a function over [0, extent), cut into chunks of `grain`. The ticket holds
; generation << 32 | chunks that nobody has claimed. A thread claims by compare and
; swap; success proves that the job of that generation has an unfinished chunk, so
; that the job's fields, written before the ticket, are its own and stay. The caller
; works too and waits for chunks, never for workers: a worker that sleeps or that the
; system has stopped holds nobody up unless it holds a chunk.

; Mirrored by PoolStruct in native.py.
%Pool = type {
  i64,            ;  0 ticket
  [7 x i64],      ;  1   (a cache line for each word that threads write)
  i64,            ;  2 chunks that workers have finished
  [7 x i64],      ;  3
  ptr,            ;  4 fn: void (ptr arg, i64 begin, i64 end)
  ptr,            ;  5 arg
  i64,            ;  6 extent
  i64,            ;  7 grain
  i64,            ;  8 chunks
  i64,            ;  9 busy: 1 while a caller owns the pool
  i64,            ; 10 workers
  i64,            ; 11 workers that sleep or are about to
  i64,            ; 12 stop: workers return
  i64,            ; 13 spin: nanoseconds a worker without work stays awake
  i64,            ; 14 the CPU that workers keep off, -1 at first
  ptr,            ; 15 i64[]: the workers' thread ids
  [16 x i64],     ; 16 the CPUs that the process may use
  i64,            ; 17 started: 1 once `start` has been called
  ptr             ; 18 start: Python callable that starts the workers
}

; Mirrored by LockStruct in native.py. word: 0 free, 1 held, 2 held and waited for.
%Lock = type { i32, i32, i64 }

declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i64 @pthread_self()
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; fn(arg, begin, end) for every chunk of [0, extent), each exactly once, all finished
; on return. Without workers, or while another caller has the pool (a nested call
; too), the same chunks run here one after the other.
define void @gc_parallel(ptr %pool, ptr %fn, ptr %arg, i64 %extent, i64 %asked) {
entry:
  %grain = call i64 @llvm.smax.i64(i64 %asked, i64 1)
  %any = icmp sgt i64 %extent, 0
  br i1 %any, label %sized, label %exit

sized:
  %single = icmp sle i64 %extent, %grain
  br i1 %single, label %direct, label %cut

direct:
  call void %fn(ptr %arg, i64 0, i64 %extent)
  ret void

cut:
  %last = sub i64 %extent, 1
  %whole = udiv i64 %last, %grain
  %chunks = add i64 %whole, 1
  %fits = icmp ult i64 %chunks, 4294967296
  %workers.at = getelementptr %Pool, ptr %pool, i32 0, i32 10
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %helped = icmp ne i64 %workers, 0
  %share = and i1 %fits, %helped
  br i1 %share, label %acquire, label %serial

acquire:
  %busy.at = getelementptr %Pool, ptr %pool, i32 0, i32 9
  %swap = cmpxchg ptr %busy.at, i64 0, i64 1 acquire monotonic
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %publish, label %serial

publish:
  %fn.at = getelementptr %Pool, ptr %pool, i32 0, i32 4
  %arg.at = getelementptr %Pool, ptr %pool, i32 0, i32 5
  %extent.at = getelementptr %Pool, ptr %pool, i32 0, i32 6
  %grain.at = getelementptr %Pool, ptr %pool, i32 0, i32 7
  %chunks.at = getelementptr %Pool, ptr %pool, i32 0, i32 8
  %finished.at = getelementptr %Pool, ptr %pool, i32 0, i32 2
  store ptr %fn, ptr %fn.at
  store ptr %arg, ptr %arg.at
  store i64 %extent, ptr %extent.at
  store i64 %grain, ptr %grain.at
  store i64 %chunks, ptr %chunks.at
  store atomic i64 0, ptr %finished.at monotonic, align 8
  ; An exchange loop is not needed: nothing is left to claim, and the only other
  ; writer of the ticket, gc_pool_stop, may lose its bump but not its wake.
  %old = load atomic i64, ptr %pool monotonic, align 8
  %generation = lshr i64 %old, 32
  %newer = add i64 %generation, 1
  %high = shl i64 %newer, 32
  %ticket = or i64 %high, %chunks
  ; Sequentially consistent against a worker's `asleep`, then its look at the ticket:
  ; one of the two sees the other.
  store atomic i64 %ticket, ptr %pool seq_cst, align 8
  %asleep.at = getelementptr %Pool, ptr %pool, i32 0, i32 11
  %asleep = load atomic i64, ptr %asleep.at seq_cst, align 8
  %idle = icmp sgt i64 %asleep, 0
  br i1 %idle, label %wake, label %work

wake:
  call void @gc_keep_off_caller(ptr %pool)
  %helpers = sub i64 %chunks, 1
  %count = call i64 @llvm.umin.i64(i64 %helpers, i64 %asleep)
  %count32 = trunc i64 %count to i32
  %generation.at = getelementptr i32, ptr %pool, i64 1
  call void @gc_futex_wake(ptr %generation.at, i32 %count32)
  br label %work

work:
  %own = call i64 @gc_drain(ptr %pool)
  %theirs = sub i64 %chunks, %own
  br label %wait

wait:
  %spins = phi i64 [ 0, %work ], [ %spun, %again ], [ 0, %yield ]
  %finished = load atomic i64, ptr %finished.at acquire, align 8
  %all = icmp eq i64 %finished, %theirs
  br i1 %all, label %release, label %pause

pause:
  call void @gc_pause()
  %spun = add i64 %spins, 1
  %long = icmp ugt i64 %spun, 200
  br i1 %long, label %yield, label %again

again:
  br label %wait

yield:
  %ignored = call i32 @sched_yield()
  br label %wait

release:
  store atomic i64 0, ptr %busy.at release, align 8
  br label %exit

serial:
  br label %chunk

chunk:
  %begin = phi i64 [ 0, %serial ], [ %end, %chunk ]
  %left = sub i64 %extent, %begin
  %step = call i64 @llvm.smin.i64(i64 %left, i64 %grain)
  %end = add i64 %begin, %step
  call void %fn(ptr %arg, i64 %begin, i64 %end)
  %more = icmp slt i64 %end, %extent
  br i1 %more, label %chunk, label %exit

exit:
  ret void
}

; Claims and runs chunks until none is left; returns how many it ran. The job cannot
; end before its caller has heard of all of them, so one report at the end will do.
define internal i64 @gc_drain(ptr %pool) {
entry:
  %fn.at = getelementptr %Pool, ptr %pool, i32 0, i32 4
  %arg.at = getelementptr %Pool, ptr %pool, i32 0, i32 5
  %extent.at = getelementptr %Pool, ptr %pool, i32 0, i32 6
  %grain.at = getelementptr %Pool, ptr %pool, i32 0, i32 7
  %chunks.at = getelementptr %Pool, ptr %pool, i32 0, i32 8
  br label %look

look:
  %ran = phi i64 [ 0, %entry ], [ %ran, %claim ], [ %counted, %run ]
  %ticket = load atomic i64, ptr %pool acquire, align 8
  %unclaimed = and i64 %ticket, 4294967295
  %none = icmp eq i64 %unclaimed, 0
  br i1 %none, label %exit, label %claim

claim:
  %taken = sub i64 %ticket, 1
  %swap = cmpxchg ptr %pool, i64 %ticket, i64 %taken acq_rel monotonic
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %run, label %look

run:
  %fn = load ptr, ptr %fn.at
  %arg = load ptr, ptr %arg.at
  %extent = load i64, ptr %extent.at
  %grain = load i64, ptr %grain.at
  %chunks = load i64, ptr %chunks.at
  %index = sub i64 %chunks, %unclaimed
  %begin = mul i64 %index, %grain
  %left = sub i64 %extent, %begin
  %step = call i64 @llvm.smin.i64(i64 %left, i64 %grain)
  %end = add i64 %begin, %step
  call void %fn(ptr %arg, i64 %begin, i64 %end)
  %counted = add i64 %ran, 1
  br label %look

exit:
  ret i64 %ran
}

define internal i64 @gc_now() {
  %time = alloca { i64, i64 }, align 8
  ; CLOCK_MONOTONIC of Linux; elsewhere there are no workers to ask
  %ignored = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %nanoseconds.at = getelementptr { i64, i64 }, ptr %time, i32 0, i32 1
  %nanoseconds = load i64, ptr %nanoseconds.at
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %nanoseconds
  ret i64 %sum
}

; What a worker thread does until gc_pool_stop.
define void @gc_worker(ptr %pool) {
entry:
  %finished.at = getelementptr %Pool, ptr %pool, i32 0, i32 2
  %asleep.at = getelementptr %Pool, ptr %pool, i32 0, i32 11
  %stop.at = getelementptr %Pool, ptr %pool, i32 0, i32 12
  %spin.at = getelementptr %Pool, ptr %pool, i32 0, i32 13
  %spin = load i64, ptr %spin.at
  br label %work

work:
  %ran = call i64 @gc_drain(ptr %pool)
  %some = icmp ne i64 %ran, 0
  br i1 %some, label %report, label %idle

report:
  %ignored = atomicrmw add ptr %finished.at, i64 %ran release
  br label %idle

idle:
  %since = call i64 @gc_now()
  br label %poll

poll:
  %polls = phi i64 [ 0, %idle ], [ %polled, %stay ]
  %ticket = load atomic i64, ptr %pool monotonic, align 8
  %unclaimed = and i64 %ticket, 4294967295
  %ready = icmp ne i64 %unclaimed, 0
  br i1 %ready, label %work, label %quiet

quiet:
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %exit, label %pause

pause:
  call void @gc_pause()
  %polled = add i64 %polls, 1
  %masked = and i64 %polled, 255
  %check = icmp eq i64 %masked, 0
  br i1 %check, label %clock, label %stay

clock:
  %now = call i64 @gc_now()
  %waited = sub i64 %now, %since
  %tired = icmp sgt i64 %waited, %spin
  br i1 %tired, label %sleep, label %stay

stay:
  br label %poll

sleep:
  %before = atomicrmw add ptr %asleep.at, i64 1 seq_cst
  %last = load atomic i64, ptr %pool seq_cst, align 8
  %late = and i64 %last, 4294967295
  %missed = icmp ne i64 %late, 0
  %halt = load atomic i64, ptr %stop.at seq_cst, align 8
  %halted = icmp ne i64 %halt, 0
  %awake = or i1 %missed, %halted
  br i1 %awake, label %rise, label %futex

futex:
  ; The high half of the ticket: every target here is little-endian.
  %generation.at = getelementptr i32, ptr %pool, i64 1
  %generation64 = lshr i64 %last, 32
  %generation = trunc i64 %generation64 to i32
  call void @gc_futex_wait(ptr %generation.at, i32 %generation)
  br label %rise

rise:
  %woken = atomicrmw sub ptr %asleep.at, i64 1 seq_cst
  br label %work

exit:
  ret void
}

; Tells the workers to return. The new generation keeps one that is just falling
; asleep awake; the caller repeats this until all threads have ended.
define void @gc_pool_stop(ptr %pool) {
  %stop.at = getelementptr %Pool, ptr %pool, i32 0, i32 12
  store atomic i64 1, ptr %stop.at seq_cst, align 8
  %ignored = atomicrmw add ptr %pool, i64 4294967296 seq_cst
  %generation.at = getelementptr i32, ptr %pool, i64 1
  call void @gc_futex_wake(ptr %generation.at, i32 2147483647)
  ret void
}

; 0: this thread holds the lock now. 1: it held it before. 2: another thread does.
define i32 @gc_try_lock(ptr %lock) {
entry:
  %self = call i64 @pthread_self()
  %owner.at = getelementptr %Lock, ptr %lock, i32 0, i32 2
  %swap = cmpxchg ptr %lock, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %held, label %refused

held:
  store atomic i64 %self, ptr %owner.at monotonic, align 8
  ret i32 0

refused:
  %owner = load atomic i64, ptr %owner.at monotonic, align 8
  %again = icmp eq i64 %owner, %self
  %code = select i1 %again, i32 1, i32 2
  ret i32 %code
}

; As gc_try_lock, but waits for another thread: never with the GIL held.
define i32 @gc_lock(ptr %lock) {
entry:
  %first = call i32 @gc_try_lock(ptr %lock)
  %decided = icmp ne i32 %first, 2
  br i1 %decided, label %done, label %wait

wait:
  %word = atomicrmw xchg ptr %lock, i32 2 acquire
  %free = icmp eq i32 %word, 0
  br i1 %free, label %held, label %sleep

sleep:
  call void @gc_futex_wait(ptr %lock, i32 2)
  br label %wait

held:
  %self = call i64 @pthread_self()
  %owner.at = getelementptr %Lock, ptr %lock, i32 0, i32 2
  store atomic i64 %self, ptr %owner.at monotonic, align 8
  ret i32 0

done:
  ret i32 %first
}

define void @gc_unlock(ptr %lock) {
entry:
  %owner.at = getelementptr %Lock, ptr %lock, i32 0, i32 2
  store atomic i64 0, ptr %owner.at monotonic, align 8
  %word = atomicrmw xchg ptr %lock, i32 0 release
  %waited = icmp eq i32 %word, 2
  br i1 %waited, label %wake, label %exit

wake:
  call void @gc_futex_wake(ptr %lock, i32 1)
  br label %exit

exit:
  ret void
}
