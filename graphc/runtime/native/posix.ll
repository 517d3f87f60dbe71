; The names of linux.ll for other POSIX systems. Pools have no workers there; a
; thread that waits for a lock gives up its time slice instead of sleeping.

define internal void @gc_futex_wait(ptr %address, i32 %seen) {
  %ignored = call i32 @sched_yield()
  ret void
}

define internal void @gc_futex_wake(ptr %address, i32 %threads) {
  ret void
}

define internal void @gc_huge_pages(ptr %memory, i64 %bytes) {
  ret void
}

define internal void @gc_keep_off_caller(ptr %pool) {
  ret void
}
