; Memory of large fetches. A fetch belongs to the user, who mostly drops it before the
; next run: its memory is kept and given to that run, for pages that are new cost more
; than what is computed into them. NumPy asks for it through a handler (its NEP 49), so
; that the arrays own their data like all others.

; A piece of memory that was given out once.
%Block = type {
  ptr,  ; 0 memory, or null: the entry is vacant
  i64,  ; 1 capacity in bytes
  i64,  ; 2 whether an array has it
  i64   ; 3 when it was given back
}

; PyDataMem_Handler: name, version, context, malloc, calloc, realloc, free.
%Handler = type { [127 x i8], i8, ptr, ptr, ptr, ptr, ptr }

@gc_blocks = internal global [16 x %Block] zeroinitializer
@gc_blocks_lock = internal global i32 0
@gc_blocks_clock = internal global i64 0
; PyDataMem_SetHandler, or null, and the capsule of the handler.
@gc_set_handler = internal global ptr null
@gc_handler_capsule = internal global ptr null

@gc_handler = global %Handler {
  [127 x i8] c"graphc\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00",
  i8 1, ptr null,
  ptr @gc_block_malloc, ptr @gc_block_calloc, ptr @gc_block_realloc, ptr @gc_block_free
}

declare ptr @calloc(i64, i64)
declare ptr @realloc(ptr, i64)

; Tells where NumPy takes a handler, and the capsule of ours.
define void @gc_use_handler(ptr %set, ptr %capsule) {
  store ptr %set, ptr @gc_set_handler
  store ptr %capsule, ptr @gc_handler_capsule
  ret void
}

; The bytes that are kept for fetches to come.
define i64 @gc_retained() {
entry:
  call void @gc_blocks_enter()
  %kept = call i64 @gc_free_bytes()
  store atomic i32 0, ptr @gc_blocks_lock release, align 4
  ret i64 %kept
}

define internal void @gc_blocks_enter() {
entry:
  br label %try

try:
  %pair = cmpxchg ptr @gc_blocks_lock, i32 0, i32 1 acquire monotonic
  %got = extractvalue { i32, i1 } %pair, 1
  br i1 %got, label %exit, label %wait

wait:
  call void @gc_pause()
  br label %try

exit:
  ret void
}

; The number of the block that is free and fits best, or of the one at %memory; -1: none.
define internal i64 @gc_find_block(ptr %memory, i64 %size) {
entry:
  %by.address = icmp ne ptr %memory, null
  %slack = lshr i64 %size, 2
  %most = add i64 %size, %slack
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %best = phi i64 [ -1, %entry ], [ %best.next, %next ]
  %least = phi i64 [ %most, %entry ], [ %least.next, %next ]
  %more = icmp slt i64 %i, 16
  br i1 %more, label %look, label %exit

look:
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %i
  %at = load ptr, ptr %block
  %capacity.at = getelementptr %Block, ptr %block, i32 0, i32 1
  %capacity = load i64, ptr %capacity.at
  %used.at = getelementptr %Block, ptr %block, i32 0, i32 2
  %used = load i64, ptr %used.at
  %same = icmp eq ptr %at, %memory
  %there = icmp ne ptr %at, null
  %unused = icmp eq i64 %used, 0
  %holds = icmp sge i64 %capacity, %size
  %tight = icmp sle i64 %capacity, %least
  %free = and i1 %there, %unused
  %fit = and i1 %holds, %tight
  %good = and i1 %free, %fit
  %chosen = select i1 %by.address, i1 %same, i1 %good
  %best.new = select i1 %chosen, i64 %i, i64 %best
  %least.new = select i1 %chosen, i64 %capacity, i64 %least
  br label %next

next:
  %best.next = phi i64 [ %best.new, %look ]
  %least.next = phi i64 [ %least.new, %look ]
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret i64 %best
}

; The number of the free block that has been free for longest, but for %except; -1: none.
define internal i64 @gc_oldest_block(i64 %except) {
entry:
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %look ]
  %best = phi i64 [ -1, %entry ], [ %best.next, %look ]
  %least = phi i64 [ 9223372036854775807, %entry ], [ %least.next, %look ]
  %more = icmp slt i64 %i, 16
  br i1 %more, label %look, label %exit

look:
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %i
  %at = load ptr, ptr %block
  %used.at = getelementptr %Block, ptr %block, i32 0, i32 2
  %used = load i64, ptr %used.at
  %when.at = getelementptr %Block, ptr %block, i32 0, i32 3
  %when = load i64, ptr %when.at
  %there = icmp ne ptr %at, null
  %unused = icmp eq i64 %used, 0
  %other = icmp ne i64 %i, %except
  %older = icmp slt i64 %when, %least
  %free = and i1 %there, %unused
  %eligible = and i1 %free, %other
  %chosen = and i1 %eligible, %older
  %best.next = select i1 %chosen, i64 %i, i64 %best
  %least.next = select i1 %chosen, i64 %when, i64 %least
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret i64 %best
}

; The number of a vacant entry, else of a free one, which is given up; -1: all are in use.
define internal i64 @gc_vacant_block() {
entry:
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, 16
  br i1 %more, label %look, label %full

look:
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %i
  %at = load ptr, ptr %block
  %vacant = icmp eq ptr %at, null
  br i1 %vacant, label %found, label %next

found:
  ret i64 %i

next:
  %i.next = add i64 %i, 1
  br label %each

full:
  %spare = call i64 @gc_oldest_block(i64 -1)
  %some = icmp sge i64 %spare, 0
  br i1 %some, label %evict, label %exit

evict:
  call void @gc_drop_block(i64 %spare)
  br label %exit

exit:
  ret i64 %spare
}

define internal void @gc_drop_block(i64 %i) {
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %i
  %memory = load ptr, ptr %block
  call void @free(ptr %memory)
  store ptr null, ptr %block
  ret void
}

define internal i64 @gc_free_bytes() {
entry:
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %look ]
  %sum = phi i64 [ 0, %entry ], [ %sum.next, %look ]
  %more = icmp slt i64 %i, 16
  br i1 %more, label %look, label %exit

look:
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %i
  %at = load ptr, ptr %block
  %capacity.at = getelementptr %Block, ptr %block, i32 0, i32 1
  %capacity = load i64, ptr %capacity.at
  %used.at = getelementptr %Block, ptr %block, i32 0, i32 2
  %used = load i64, ptr %used.at
  %there = icmp ne ptr %at, null
  %unused = icmp eq i64 %used, 0
  %free = and i1 %there, %unused
  %counted = select i1 %free, i64 %capacity, i64 0
  %sum.next = add i64 %sum, %counted
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret i64 %sum
}

define ptr @gc_block_malloc(ptr %ignored, i64 %size) {
entry:
  %new.at = alloca ptr, align 8
  call void @gc_blocks_enter()
  %found = call i64 @gc_find_block(ptr null, i64 %size)
  %kept = icmp sge i64 %found, 0
  br i1 %kept, label %reuse, label %fresh

reuse:
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %found
  %used.at = getelementptr %Block, ptr %block, i32 0, i32 2
  store i64 1, ptr %used.at
  %memory = load ptr, ptr %block
  store atomic i32 0, ptr @gc_blocks_lock release, align 4
  ret ptr %memory

fresh:
  store atomic i32 0, ptr @gc_blocks_lock release, align 4
  ; More than the machine has would be granted, and the process killed when it is used.
  %all = load i64, ptr @gc_memory_bytes
  %absurd = icmp ugt i64 %size, %all
  br i1 %absurd, label %refused, label %allocate

refused:
  ret ptr null

allocate:
  %huge = icmp sge i64 %size, 4194304
  %align = select i1 %huge, i64 2097152, i64 64
  %error = call i32 @posix_memalign(ptr %new.at, i64 %align, i64 %size)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %refused, label %note

note:
  %new = load ptr, ptr %new.at
  br i1 %huge, label %advise, label %enter

advise:
  call void @gc_huge_pages(ptr %new, i64 %size)
  br label %enter

enter:
  call void @gc_blocks_enter()
  %entry.number = call i64 @gc_vacant_block()
  %room = icmp sge i64 %entry.number, 0
  br i1 %room, label %list, label %done

list:
  %place = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %entry.number
  store ptr %new, ptr %place
  %capacity.at = getelementptr %Block, ptr %place, i32 0, i32 1
  store i64 %size, ptr %capacity.at
  %taken.at = getelementptr %Block, ptr %place, i32 0, i32 2
  store i64 1, ptr %taken.at
  br label %done

done:
  store atomic i32 0, ptr @gc_blocks_lock release, align 4
  ret ptr %new
}

; NumPy asks for zeros only for arrays of its own making that share the handler.
define ptr @gc_block_calloc(ptr %ignored, i64 %count, i64 %size) {
  %memory = call ptr @calloc(i64 %count, i64 %size)
  ret ptr %memory
}

; ndarray.resize: from here on the memory is like any other.
define ptr @gc_block_realloc(ptr %ignored, ptr %memory, i64 %size) {
entry:
  call void @gc_blocks_enter()
  %found = call i64 @gc_find_block(ptr %memory, i64 0)
  %listed = icmp sge i64 %found, 0
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %found
  br i1 %listed, label %forget, label %move

forget:
  store ptr null, ptr %block
  br label %move

move:
  %new = call ptr @realloc(ptr %memory, i64 %size)
  ; What could not be moved is still there.
  %failed = icmp eq ptr %new, null
  %back = and i1 %failed, %listed
  br i1 %back, label %restore, label %exit

restore:
  store ptr %memory, ptr %block
  br label %exit

exit:
  store atomic i32 0, ptr @gc_blocks_lock release, align 4
  ret ptr %new
}

define void @gc_block_free(ptr %ignored, ptr %memory, i64 %size) {
entry:
  call void @gc_blocks_enter()
  %null = icmp eq ptr %memory, null
  br i1 %null, label %exit, label %search

search:
  %found = call i64 @gc_find_block(ptr %memory, i64 0)
  %listed = icmp sge i64 %found, 0
  br i1 %listed, label %keep, label %plain

plain:
  call void @free(ptr %memory)
  br label %exit

keep:
  %block = getelementptr [16 x %Block], ptr @gc_blocks, i64 0, i64 %found
  %used.at = getelementptr %Block, ptr %block, i32 0, i32 2
  store i64 0, ptr %used.at
  %clock = load i64, ptr @gc_blocks_clock
  %now = add i64 %clock, 1
  store i64 %now, ptr @gc_blocks_clock
  %when.at = getelementptr %Block, ptr %block, i32 0, i32 3
  store i64 %now, ptr %when.at
  br label %weigh

weigh:
  %kept = call i64 @gc_free_bytes()
  %limit = load i64, ptr @gc_retain_bytes
  %much = icmp sgt i64 %kept, %limit
  br i1 %much, label %shed, label %exit

shed:
  ; What nobody has asked for again goes first.
  %oldest = call i64 @gc_oldest_block(i64 %found)
  %some = icmp sge i64 %oldest, 0
  %victim = select i1 %some, i64 %oldest, i64 %found
  call void @gc_drop_block(i64 %victim)
  br label %weigh

exit:
  store atomic i32 0, ptr @gc_blocks_lock release, align 4
  ret void
}

; A new array of a fetch, with memory of ours where it is large.
define internal ptr @gc_new_array(ptr %ctx, ptr %output, ptr %dims) {
entry:
  %bytes = call i64 @gc_output_bytes(ptr %output, ptr %dims)
  %large = icmp sge i64 %bytes, 1048576
  %set = load ptr, ptr @gc_set_handler
  %able = icmp ne ptr %set, null
  %ours = and i1 %large, %able
  br i1 %ours, label %switch, label %make

switch:
  %capsule = load ptr, ptr @gc_handler_capsule
  %before = call ptr %set(ptr %capsule)
  %switched = icmp ne ptr %before, null
  br i1 %switched, label %make.ours, label %raised

raised:
  ret ptr null

make.ours:
  %large.array = call ptr @gc_make_array(ptr %ctx, ptr %output, ptr %dims)
  %ours.again = call ptr %set(ptr %before)
  call void @Py_DecRef(ptr %before)
  %restored = icmp ne ptr %ours.again, null
  br i1 %restored, label %drop, label %give

drop:
  call void @Py_DecRef(ptr %ours.again)
  br label %give

give:
  ret ptr %large.array

make:
  %array = call ptr @gc_make_array(ptr %ctx, ptr %output, ptr %dims)
  ret ptr %array
}
