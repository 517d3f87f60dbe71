; What programs with loops and sizes of their own call while they run.

declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()

; A piece of memory that grows as it is needed.
%Cell = type {
  ptr,  ; 0 memory
  i64   ; 1 capacity in bytes
}

; Makes cell number %index hold %need bytes, the first %keep of which stay what they are.
; False where there is not so much memory: status[0] says how much it would have been.
define i1 @gc_ensure(ptr %ctx, i64 %index, i64 %need, i64 %keep) {
entry:
  %new.at = alloca ptr, align 8
  %cells.at = getelementptr %Context, ptr %ctx, i32 0, i32 21
  %cells = load ptr, ptr %cells.at
  %cell = getelementptr %Cell, ptr %cells, i64 %index
  %capacity.at = getelementptr %Cell, ptr %cell, i32 0, i32 1
  %capacity = load i64, ptr %capacity.at
  %fits = icmp sle i64 %need, %capacity
  br i1 %fits, label %enough, label %grow

enough:
  ret i1 true

grow:
  ; Half as much again, so that what grows step by step is copied seldom.
  %half = ashr i64 %capacity, 1
  %more = add i64 %capacity, %half
  %larger = icmp sgt i64 %more, %need
  %wanted = select i1 %larger, i64 %more, i64 %need
  %small = icmp slt i64 %wanted, 64
  %size = select i1 %small, i64 64, i64 %wanted
  ; More than the machine has would be granted, and the process killed when it is used.
  %all = load i64, ptr @gc_memory_bytes
  %absurd = icmp sgt i64 %need, %all
  br i1 %absurd, label %refused, label %allocate

allocate:
  %huge = icmp sge i64 %size, 4194304
  %align = select i1 %huge, i64 2097152, i64 64
  %error = call i32 @posix_memalign(ptr %new.at, i64 %align, i64 %size)
  %got = icmp eq i32 %error, 0
  br i1 %got, label %move, label %refused

refused:
  %status.at = getelementptr %Context, ptr %ctx, i32 0, i32 13
  %status = load ptr, ptr %status.at
  store i64 %size, ptr %status
  ret i1 false

move:
  %new = load ptr, ptr %new.at
  %old = load ptr, ptr %cell
  %some = icmp sgt i64 %keep, 0
  br i1 %some, label %copy, label %free

copy:
  call void @llvm.memcpy.p0.p0.i64(ptr %new, ptr %old, i64 %keep, i1 false)
  br label %free

free:
  call void @free(ptr %old)
  store ptr %new, ptr %cell
  store i64 %size, ptr %capacity.at
  ret i1 true
}

define internal void @gc_cells_free(ptr %ctx) {
entry:
  %cells.at = getelementptr %Context, ptr %ctx, i32 0, i32 21
  %cells = load ptr, ptr %cells.at
  %count.at = getelementptr %Context, ptr %ctx, i32 0, i32 22
  %count = load i64, ptr %count.at
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %drop ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %drop, label %exit

drop:
  %cell = getelementptr %Cell, ptr %cells, i64 %i
  %memory = load ptr, ptr %cell
  call void @free(ptr %memory)
  store ptr null, ptr %cell
  %capacity.at = getelementptr %Cell, ptr %cell, i32 0, i32 1
  store i64 0, ptr %capacity.at
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret void
}

; Looks, now and then, whether a signal waits for Python to handle it (Ctrl-C). False
; if handling it set an exception: the run is to end.
define i1 @gc_poll(ptr %ctx) {
entry:
  %time = alloca [2 x i64], align 8
  ; CLOCK_MONOTONIC_COARSE of Linux, CLOCK_MONOTONIC of macOS.
  %ignored = call i32 @clock_gettime(i32 6, ptr %time)
  %seconds = load i64, ptr %time
  %nano.at = getelementptr i64, ptr %time, i64 1
  %nano = load i64, ptr %nano.at
  %milli = udiv i64 %nano, 1000000
  %thousand = mul i64 %seconds, 1000
  %now = add i64 %thousand, %milli
  %last.at = getelementptr %Context, ptr %ctx, i32 0, i32 23
  %last = load i64, ptr %last.at
  %passed = sub i64 %now, %last
  %due = icmp sge i64 %passed, 20
  br i1 %due, label %look, label %on

on:
  ret i1 true

look:
  store i64 %now, ptr %last.at
  %state = call i32 @PyGILState_Ensure()
  %code = call i32 @PyErr_CheckSignals()
  call void @PyGILState_Release(i32 %state)
  %fine = icmp eq i32 %code, 0
  ret i1 %fine
}

declare ptr @PyErr_Occurred()

; A host step: Python computes. %args are the addresses of the operands and the results.
; False if an exception is set: the run is to end.
define i1 @gc_host(ptr %ctx, i64 %number, ptr %args) {
entry:
  %host.at = getelementptr %Context, ptr %ctx, i32 0, i32 24
  %host = load ptr, ptr %host.at
  %state = call i32 @PyGILState_Ensure()
  %tuple = call ptr @PyTuple_New(i64 2)
  %full = icmp eq ptr %tuple, null
  br i1 %full, label %leave, label %fill

fill:
  %number.object = call ptr @PyLong_FromSsize_t(i64 %number)
  %address = ptrtoint ptr %args to i64
  %args.object = call ptr @PyLong_FromSsize_t(i64 %address)
  ; An int that could not be made leaves a hole in the tuple, and an exception.
  %set.number = call i32 @PyTuple_SetItem(ptr %tuple, i64 0, ptr %number.object)
  %set.args = call i32 @PyTuple_SetItem(ptr %tuple, i64 1, ptr %args.object)
  %error = call ptr @PyErr_Occurred()
  %clean = icmp eq ptr %error, null
  br i1 %clean, label %invoke, label %drop

invoke:
  %answer = call ptr @PyObject_CallObject(ptr %host, ptr %tuple)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %drop, label %done

done:
  call void @Py_DecRef(ptr %answer)
  br label %drop

drop:
  %good = phi i1 [ false, %fill ], [ false, %invoke ], [ true, %done ]
  call void @Py_DecRef(ptr %tuple)
  br label %leave

leave:
  %result = phi i1 [ false, %entry ], [ %good, %drop ]
  call void @PyGILState_Release(i32 %state)
  ret i1 %result
}
