; What gc_call does under the session lock.

; Plans and runs; the new arrays are in %objects. Returns 0, a failure code, or a
; negative number when an exception is set.
define internal i64 @gc_execute(ptr %ctx, ptr %views, ptr %bound, ptr %objects, ptr %cells, ptr %given) {
entry:
  %symbols.at = getelementptr %Context, ptr %ctx, i32 0, i32 6
  %symbols = load i64, ptr %symbols.at
  %bytes = shl i64 %symbols, 3
  %syms.at = getelementptr %Context, ptr %ctx, i32 0, i32 7
  %syms = load ptr, ptr %syms.at
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %syms, ptr align 8 %bound, i64 %bytes, i1 false)
  %status.at = getelementptr %Context, ptr %ctx, i32 0, i32 13
  %status = load ptr, ptr %status.at
  call void @llvm.memset.p0.i64(ptr align 8 %status, i8 0, i64 64, i1 false)
  %dims.at = getelementptr %Context, ptr %ctx, i32 0, i32 8
  %dims = load ptr, ptr %dims.at
  %plan = load ptr, ptr %ctx
  %work = call i64 %plan(ptr %syms, ptr %dims)
  %threshold.at = getelementptr %Context, ptr %ctx, i32 0, i32 20
  %threshold = load i64, ptr %threshold.at
  %large = icmp sge i64 %work, %threshold
  %sane = icmp sge i64 %work, 0
  br i1 %sane, label %pool, label %overflow

overflow:
  ; -2: a guard is broken, which run would say with 2, but the outputs' sizes may be nonsense.
  %broken = icmp eq i64 %work, -2
  %overflow.code = load i64, ptr @gc_overflow
  %insane = select i1 %broken, i64 2, i64 %overflow.code
  ret i64 %insane

pool:
  %pool.at = getelementptr %Context, ptr %ctx, i32 0, i32 14
  %threads = load ptr, ptr %pool.at
  %some = icmp ne ptr %threads, null
  %ask = and i1 %some, %large
  br i1 %ask, label %started, label %memory

started:
  %started.at = getelementptr %Pool, ptr %threads, i32 0, i32 17
  %begun = load i64, ptr %started.at
  %running = icmp ne i64 %begun, 0
  br i1 %running, label %memory, label %start

start:
  %start.code = load i64, ptr @gc_start_workers
  ret i64 %start.code

memory:
  %reserved = call i1 @gc_reserve(ptr %ctx)
  br i1 %reserved, label %allocate, label %exhausted

exhausted:
  %exhausted.code = load i64, ptr @gc_out_of_memory
  ret i64 %exhausted.code

allocate:
  %unmade = call i64 @gc_outputs(ptr %ctx, ptr %objects, ptr %cells, ptr %given, ptr %views, i1 false)
  %made = icmp eq i64 %unmade, 0
  br i1 %made, label %place, label %refused

refused:
  ret i64 %unmade

place:
  call void @gc_place_inputs(ptr %ctx, ptr %views)
  %run.at = getelementptr %Context, ptr %ctx, i32 0, i32 1
  %run = load ptr, ptr %run.at
  br i1 %large, label %unlocked, label %holding

holding:
  %quick = call i32 %run(ptr %ctx)
  br label %ran

unlocked:
  %thread = call ptr @PyEval_SaveThread()
  %slow = call i32 %run(ptr %ctx)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ran

ran:
  %code32 = phi i32 [ %quick, %holding ], [ %slow, %unlocked ]
  %code = sext i32 %code32 to i64
  %good = icmp eq i64 %code, 0
  br i1 %good, label %late, label %failed

failed:
  ret i64 %code

late:
  %result = call i64 @gc_outputs(ptr %ctx, ptr %objects, ptr %cells, ptr %given, ptr %views, i1 true)
  ret i64 %result
}

; Makes the arena as large as this run needs. The old contents are not kept.
define internal i1 @gc_reserve(ptr %ctx) {
entry:
  %index.at = getelementptr %Context, ptr %ctx, i32 0, i32 12
  %index = load i64, ptr %index.at
  %used = icmp sge i64 %index, 0
  br i1 %used, label %compare, label %enough

compare:
  %dims.at = getelementptr %Context, ptr %ctx, i32 0, i32 8
  %dims = load ptr, ptr %dims.at
  %need.at = getelementptr i64, ptr %dims, i64 %index
  %need = load i64, ptr %need.at
  %capacity.at = getelementptr %Context, ptr %ctx, i32 0, i32 11
  %capacity = load i64, ptr %capacity.at
  %fits = icmp sle i64 %need, %capacity
  br i1 %fits, label %enough, label %grow

enough:
  ret i1 true

grow:
  call void @gc_arena_free(ptr %ctx)
  ; More than the machine has would be granted, and the process killed when it is used.
  %all = load i64, ptr @gc_memory_bytes
  %absurd = icmp sgt i64 %need, %all
  br i1 %absurd, label %refused, label %allocate

allocate:
  %arena.at = getelementptr %Context, ptr %ctx, i32 0, i32 10
  %huge = icmp sge i64 %need, 4194304
  %align = select i1 %huge, i64 2097152, i64 64
  %error = call i32 @posix_memalign(ptr %arena.at, i64 %align, i64 %need)
  %got = icmp eq i32 %error, 0
  br i1 %got, label %keep, label %refused

refused:
  %refused.at = getelementptr %Context, ptr %ctx, i32 0, i32 10
  store ptr null, ptr %refused.at
  %status.at = getelementptr %Context, ptr %ctx, i32 0, i32 13
  %status = load ptr, ptr %status.at
  store i64 %need, ptr %status
  ret i1 false

keep:
  store i64 %need, ptr %capacity.at
  br i1 %huge, label %advise, label %enough

advise:
  %arena = load ptr, ptr %arena.at
  call void @gc_huge_pages(ptr %arena, i64 %need)
  ret i1 true
}

define void @gc_context_free(ptr %ctx) {
  call void @gc_arena_free(ptr %ctx)
  call void @gc_cells_free(ptr %ctx)
  ret void
}

define void @gc_arena_free(ptr %ctx) {
  %arena.at = getelementptr %Context, ptr %ctx, i32 0, i32 10
  %capacity.at = getelementptr %Context, ptr %ctx, i32 0, i32 11
  %arena = load ptr, ptr %arena.at
  call void @free(ptr %arena)
  store ptr null, ptr %arena.at
  store i64 0, ptr %capacity.at
  ret void
}

define internal void @gc_place_inputs(ptr %ctx, ptr %views) {
entry:
  %inputs.at = getelementptr %Context, ptr %ctx, i32 0, i32 2
  %inputs = load i64, ptr %inputs.at
  %table.at = getelementptr %Context, ptr %ctx, i32 0, i32 3
  %table = load ptr, ptr %table.at
  %buffers.at = getelementptr %Context, ptr %ctx, i32 0, i32 9
  %buffers = load ptr, ptr %buffers.at
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %place ]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %place, label %exit

place:
  %view = getelementptr %View, ptr %views, i64 %i
  %data = load ptr, ptr %view
  %input = getelementptr %Input, ptr %table, i64 %i
  %slot = load i64, ptr %input
  %slot.at = getelementptr ptr, ptr %buffers, i64 %slot
  store ptr %data, ptr %slot.at
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret void
}

; Creates the arrays of the outputs that are late, or of those that are not, or takes those
; given. Returns 0, a failure code, or -1 if an exception is set. A late one copies what the
; program left; the others tell the program where to write.
define internal i64 @gc_outputs(ptr %ctx, ptr %objects, ptr %cells, ptr %given, ptr %views, i1 %late) {
entry:
  %outputs.at = getelementptr %Context, ptr %ctx, i32 0, i32 4
  %outputs = load i64, ptr %outputs.at
  %table.at = getelementptr %Context, ptr %ctx, i32 0, i32 5
  %table = load ptr, ptr %table.at
  %dims.at = getelementptr %Context, ptr %ctx, i32 0, i32 8
  %dims = load ptr, ptr %dims.at
  %buffers.at = getelementptr %Context, ptr %ctx, i32 0, i32 9
  %buffers = load ptr, ptr %buffers.at
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %outputs
  br i1 %more, label %pick, label %done

pick:
  %output = getelementptr %Output, ptr %table, i64 %i
  %slot = load i64, ptr %output
  %slot.at = getelementptr ptr, ptr %buffers, i64 %slot
  %flags.at = getelementptr %Output, ptr %output, i32 0, i32 5
  %flags = load i64, ptr %flags.at
  %late.bit = and i64 %flags, 2
  %is.late = icmp ne i64 %late.bit, 0
  %other = xor i1 %is.late, %late
  br i1 %other, label %next, label %kind

kind:
  %scalar.bit = and i64 %flags, 1
  %is.scalar = icmp ne i64 %scalar.bit, 0
  br i1 %is.scalar, label %scalar, label %array

scalar:
  %cell = getelementptr [16 x i8], ptr %cells, i64 %i
  br i1 %late, label %scalar.copy, label %scalar.place

scalar.copy:
  %value = load ptr, ptr %slot.at
  %width.at = getelementptr %Output, ptr %output, i32 0, i32 2
  %width = load i64, ptr %width.at
  call void @llvm.memcpy.p0.p0.i64(ptr align 16 %cell, ptr %value, i64 %width, i1 false)
  br label %next

scalar.place:
  store ptr %cell, ptr %slot.at
  br label %next

array:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %none.given = icmp eq ptr %given, null
  br i1 %none.given, label %create, label %choose

choose:
  %given.at = getelementptr ptr, ptr %given, i64 %i
  %offered = load ptr, ptr %given.at
  %not.this = icmp eq ptr %offered, null
  br i1 %not.this, label %create, label %check

check:
  %others = select i1 %late, ptr null, ptr %views
  %fits = call i1 @gc_given_fits(ptr %ctx, ptr %output, ptr %dims, ptr %offered, ptr %others)
  br i1 %fits, label %take, label %unfit

unfit:
  %unfit.code = load i64, ptr @gc_unfit
  ret i64 %unfit.code

take:
  call void @Py_IncRef(ptr %offered)
  br label %keep

create:
  %created = call ptr @gc_new_array(ptr %ctx, ptr %output, ptr %dims)
  %raised = icmp eq ptr %created, null
  br i1 %raised, label %fail, label %keep

keep:
  %object = phi ptr [ %offered, %take ], [ %created, %create ]
  store ptr %object, ptr %object.at
  br label %fill

fill:
  %data.at = getelementptr %Array, ptr %object, i32 0, i32 2
  %data = load ptr, ptr %data.at
  br i1 %late, label %copy, label %place

place:
  store ptr %data, ptr %slot.at
  br label %next

copy:
  %source = load ptr, ptr %slot.at
  %bytes = call i64 @gc_output_bytes(ptr %output, ptr %dims)
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %source, i64 %bytes, i1 false)
  br label %next

next:
  %i.next = add i64 %i, 1
  br label %each

done:
  ret i64 0

fail:
  ret i64 -1
}

define internal ptr @gc_make_array(ptr %ctx, ptr %output, ptr %dims) {
  %rank.at = getelementptr %Output, ptr %output, i32 0, i32 1
  %rank = load i64, ptr %rank.at
  %nd = trunc i64 %rank to i32
  %first.at = getelementptr %Output, ptr %output, i32 0, i32 3
  %first = load i64, ptr %first.at
  %shape = getelementptr i64, ptr %dims, i64 %first
  %dtype.at = getelementptr %Output, ptr %output, i32 0, i32 4
  %dtype = load ptr, ptr %dtype.at
  %new.at = getelementptr %Context, ptr %ctx, i32 0, i32 16
  %new = load ptr, ptr %new.at
  %ndarray.at = getelementptr %Context, ptr %ctx, i32 0, i32 18
  %ndarray = load ptr, ptr %ndarray.at
  ; PyArray_NewFromDescr takes over a reference to the dtype.
  call void @Py_IncRef(ptr %dtype)
  %object = call ptr %new(ptr %ndarray, ptr %dtype, i32 %nd, ptr %shape, ptr null, ptr null, i32 0, ptr null)
  ret ptr %object
}

define internal i64 @gc_output_bytes(ptr %output, ptr %dims) {
entry:
  %rank.at = getelementptr %Output, ptr %output, i32 0, i32 1
  %rank = load i64, ptr %rank.at
  %itemsize.at = getelementptr %Output, ptr %output, i32 0, i32 2
  %itemsize = load i64, ptr %itemsize.at
  %first.at = getelementptr %Output, ptr %output, i32 0, i32 3
  %first = load i64, ptr %first.at
  %shape = getelementptr i64, ptr %dims, i64 %first
  br label %each

each:
  %d = phi i64 [ 0, %entry ], [ %d.next, %times ]
  %bytes = phi i64 [ %itemsize, %entry ], [ %product, %times ]
  %more = icmp slt i64 %d, %rank
  br i1 %more, label %times, label %exit

times:
  %size.at = getelementptr i64, ptr %shape, i64 %d
  %size = load i64, ptr %size.at
  %product = mul i64 %bytes, %size
  %d.next = add i64 %d, 1
  br label %each

exit:
  ret i64 %bytes
}
