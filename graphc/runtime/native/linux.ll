; What the pool and the locks need of Linux. posix.ll has the same names for other
; systems. @gc_futex_number and @gc_pause come from native.py: they differ by CPU.

declare i64 @syscall(i64, ...)
declare i32 @madvise(ptr, i64, i32)
declare i32 @sched_getcpu()
declare i32 @sched_setaffinity(i32, i64, ptr)

; Sleeps while the 32 bits at %address are %seen. Returns early now and then.
define internal void @gc_futex_wait(ptr %address, i32 %seen) {
  ; FUTEX_WAIT_PRIVATE
  %number = load i64, ptr @gc_futex_number
  %ignored = call i64 (i64, ...) @syscall(i64 %number, ptr %address, i32 128, i32 %seen, ptr null)
  ret void
}

define internal void @gc_futex_wake(ptr %address, i32 %threads) {
  ; FUTEX_WAKE_PRIVATE
  %number = load i64, ptr @gc_futex_number
  %ignored = call i64 (i64, ...) @syscall(i64 %number, ptr %address, i32 129, i32 %threads)
  ret void
}

; A hint: failure changes nothing but speed.
define internal void @gc_huge_pages(ptr %memory, i64 %bytes) {
  ; MADV_HUGEPAGE
  %ignored = call i32 @madvise(ptr %memory, i64 %bytes, i32 14)
  ret void
}

; Moves the workers off the calling thread's CPU. A sleeping worker wakes on the
; CPU of the thread that wakes it, and would wait there for as long as that thread
; computes. Above eight workers the scheduler finds idle CPUs by itself, and the
; system calls would cost more than they save.
define internal void @gc_keep_off_caller(ptr %pool) {
entry:
  %mask = alloca [16 x i64], align 8
  %cpu32 = call i32 @sched_getcpu()
  %cpu = sext i32 %cpu32 to i64
  %known = icmp ult i64 %cpu, 1024
  %avoided.at = getelementptr %Pool, ptr %pool, i32 0, i32 14
  %avoided = load i64, ptr %avoided.at
  %moved = icmp ne i64 %cpu, %avoided
  %workers.at = getelementptr %Pool, ptr %pool, i32 0, i32 10
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %few = icmp ule i64 %workers, 8
  %worth = and i1 %moved, %few
  %go = and i1 %known, %worth
  br i1 %go, label %exclude, label %exit

exclude:
  store i64 %cpu, ptr %avoided.at
  %allowed = getelementptr %Pool, ptr %pool, i32 0, i32 16
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %mask, ptr align 8 %allowed, i64 128, i1 false)
  %word = lshr i64 %cpu, 6
  %bit = and i64 %cpu, 63
  %one = shl i64 1, %bit
  %keep = xor i64 %one, -1
  %word.at = getelementptr i64, ptr %mask, i64 %word
  %before = load i64, ptr %word.at
  %after = and i64 %before, %keep
  store i64 %after, ptr %word.at
  %threads.at = getelementptr %Pool, ptr %pool, i32 0, i32 15
  %threads = load ptr, ptr %threads.at
  br label %each

each:
  %i = phi i64 [ 0, %exclude ], [ %next, %move ]
  %more = icmp ult i64 %i, %workers
  br i1 %more, label %move, label %exit

move:
  %thread.at = getelementptr i64, ptr %threads, i64 %i
  %thread64 = load i64, ptr %thread.at
  %thread = trunc i64 %thread64 to i32
  %ignored = call i32 @sched_setaffinity(i32 %thread, i64 128, ptr %mask)
  %next = add i64 %i, 1
  br label %each

exit:
  ret void
}
