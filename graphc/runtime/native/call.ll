; The call from Python: one METH_FASTCALL function for every executable. Its `self`
; is an int, the address of the executable's %Context. direct.ll has another for the
; user, who gets nothing but results and exceptions.
;
; The answer is
;   the outputs              an array or scalar, a tuple or a list of them;
;   an int -(i + 1)          argument i is not the array that the program was compiled
;                            for (i = number of inputs: too few or too many), nothing
;                            was run and no exception is set: convert and call again;
;   bytes of 9 x int64       failure code, then the program's status words;
;   NULL                     a Python exception is set.

; Mirrored by ContextStruct in native.py.
%Context = type {
  ptr,  ;  0 plan: i64 (ptr syms, ptr dims) -> bytes and operations, < 0: overflow
  ptr,  ;  1 run: i32 (ptr context) -> 0, > 0: failure code, < 0: exception set
  i64,  ;  2 number of inputs
  ptr,  ;  3 %Input[]
  i64,  ;  4 number of outputs
  ptr,  ;  5 %Output[]
  i64,  ;  6 number of symbols
  ptr,  ;  7 syms: i64[]
  ptr,  ;  8 dims: i64[]
  ptr,  ;  9 buffers: ptr[]
  ptr,  ; 10 arena
  i64,  ; 11 arena capacity in bytes
  i64,  ; 12 index in dims of the arena bytes that this run needs, -1: none
  ptr,  ; 13 status: i64[8]
  ptr,  ; 14 %Pool, or null
  ptr,  ; 15 %Lock of the session
  ptr,  ; 16 PyArray_NewFromDescr
  ptr,  ; 17 PyArray_Scalar
  ptr,  ; 18 numpy.ndarray
  i64,  ; 19 form of the answer: 0 a tuple, 1 the single output itself, 2 a list
  i64,  ; 20 the work from which on the GIL is released and workers are started
  ptr,  ; 21 %Cell[]: memory that grows while a program runs
  i64,  ; 22 number of cells
  i64,  ; 23 when signals were looked for, in milliseconds
  ptr   ; 24 the Python callable of the host steps, or null
}

; dims: i64[rank], v >= 0 a fixed size, v < 0 symbol -(v + 1).
%Input = type {
  i64,  ; 0 slot in buffers
  i64,  ; 1 rank
  i64,  ; 2 itemsize
  i64,  ; 3 accepted format characters, one a byte, lowest first
  ptr,  ; 4 dims
  ptr   ; 5 numpy dtype
}

%Output = type {
  i64,  ; 0 slot in buffers
  i64,  ; 1 rank
  i64,  ; 2 itemsize
  i64,  ; 3 index in dims of its first size
  ptr,  ; 4 numpy dtype
  i64   ; 5 flags, 1: as a scalar, 2: late (sizes known after run, data in buffers)
}

; Py_buffer of the stable ABI.
%View = type { ptr, ptr, i64, i64, i32, i32, ptr, ptr, ptr, ptr, ptr }
; The fields of an ndarray that NumPy's own macros read: refcount, type, data, ndim,
; shape, strides, base, dtype, flags.
%Array = type { i64, ptr, ptr, i32, ptr, ptr, ptr, ptr, i32 }

declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyLong_FromSsize_t(i64)
declare ptr @PyBytes_FromStringAndSize(ptr, i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare i32 @PyObject_GetBuffer(ptr, ptr, i32)
declare void @PyBuffer_Release(ptr)
declare ptr @PyObject_CallObject(ptr, ptr)
declare void @PyErr_Clear()
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @posix_memalign(ptr, i64, i64)
declare void @free(ptr)

; Failure codes of the call itself; a program's own are smaller. native.py names them.
@gc_overflow = internal constant i64 1073741825
@gc_out_of_memory = internal constant i64 1073741826
@gc_reentrant = internal constant i64 1073741827
; Internal: start the workers, then begin again.
@gc_start_workers = internal constant i64 1073741828
; An array that was given for an output does not fit, or shares memory with an input.
@gc_unfit = internal constant i64 1073741829

define ptr @gc_call(ptr %self, ptr %args, i64 %nargs) {
  %ctx = call ptr @PyLong_AsVoidPtr(ptr %self)
  %form.at = getelementptr %Context, ptr %ctx, i32 0, i32 19
  %form = load i64, ptr %form.at
  %answer = call ptr @gc_enter(ptr %ctx, ptr %args, i64 %nargs, i64 %form, ptr null)
  ret ptr %answer
}

; %given is null, or has an array of the caller's (or null) for each output.
define internal ptr @gc_enter(ptr %ctx, ptr %args, i64 %nargs, i64 %form, ptr %given) {
entry:
  %inputs.at = getelementptr %Context, ptr %ctx, i32 0, i32 2
  %inputs = load i64, ptr %inputs.at
  %outputs.at = getelementptr %Context, ptr %ctx, i32 0, i32 4
  %outputs = load i64, ptr %outputs.at
  %symbols.at = getelementptr %Context, ptr %ctx, i32 0, i32 6
  %symbols = load i64, ptr %symbols.at
  %lock.at = getelementptr %Context, ptr %ctx, i32 0, i32 15
  %lock = load ptr, ptr %lock.at
  %views = alloca %View, i64 %inputs, align 16
  %syms = alloca i64, i64 %symbols, align 16
  %objects = alloca ptr, i64 %outputs, align 16
  ; Rank-0 results that become scalars are computed here, 16 bytes each.
  %cells = alloca [16 x i8], i64 %outputs, align 16
  %report = alloca [9 x i64], align 16
  %syms.bytes = shl i64 %symbols, 3
  call void @llvm.memset.p0.i64(ptr align 16 %syms, i8 -1, i64 %syms.bytes, i1 false)
  %objects.bytes = shl i64 %outputs, 3
  call void @llvm.memset.p0.i64(ptr align 16 %objects, i8 0, i64 %objects.bytes, i1 false)
  %counted = icmp eq i64 %nargs, %inputs
  br i1 %counted, label %bind, label %uncounted

uncounted:
  %miscount = call ptr @gc_mismatch(i64 %inputs)
  ret ptr %miscount

bind:
  %fit = call i64 @gc_bind(ptr %ctx, ptr %args, ptr %views, ptr %syms)
  %fits = icmp eq i64 %fit, %inputs
  br i1 %fits, label %lock.session, label %mismatch

mismatch:
  %held = add i64 %fit, 1
  call void @gc_release(ptr %views, i64 %held)
  %misfit = call ptr @gc_mismatch(i64 %fit)
  ret ptr %misfit

lock.session:
  %locked = call i32 @gc_session_lock(ptr %lock)
  %entered = icmp eq i32 %locked, 0
  br i1 %entered, label %execute, label %reentered

reentered:
  %reentrant = load i64, ptr @gc_reentrant
  call void @llvm.memset.p0.i64(ptr align 16 %report, i8 0, i64 72, i1 false)
  store i64 %reentrant, ptr %report
  br label %failed

execute:
  %code = call i64 @gc_execute(ptr %ctx, ptr %views, ptr %syms, ptr %objects, ptr %cells, ptr %given)
  %good = icmp eq i64 %code, 0
  br i1 %good, label %finish, label %save

save:
  ; Copied under the lock: the next call writes the status words.
  store i64 %code, ptr %report
  %words = getelementptr i64, ptr %report, i64 1
  %status.at = getelementptr %Context, ptr %ctx, i32 0, i32 13
  %status = load ptr, ptr %status.at
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %words, ptr align 8 %status, i64 64, i1 false)
  call void @gc_unlock(ptr %lock)
  %starting = load i64, ptr @gc_start_workers
  %start = icmp eq i64 %code, %starting
  br i1 %start, label %start.workers, label %sort

start.workers:
  %begun = call i1 @gc_start_pool(ptr %ctx)
  br i1 %begun, label %lock.session, label %failed

sort:
  %negative = icmp slt i64 %code, 0
  br label %failed

failed:
  %raised = phi i1 [ false, %reentered ], [ true, %start.workers ], [ %negative, %sort ]
  call void @gc_release(ptr %views, i64 %inputs)
  call void @gc_discard(ptr %objects, i64 %outputs)
  br i1 %raised, label %null, label %tell

tell:
  %failure = call ptr @PyBytes_FromStringAndSize(ptr %report, i64 72)
  ret ptr %failure

null:
  ret ptr null

finish:
  call void @gc_unlock(ptr %lock)
  call void @gc_release(ptr %views, i64 %inputs)
  %result = call ptr @gc_result(ptr %ctx, ptr %objects, ptr %cells, i64 %form)
  ret ptr %result
}

define internal ptr @gc_mismatch(i64 %argument) {
  %code = xor i64 %argument, -1
  %object = call ptr @PyLong_FromSsize_t(i64 %code)
  ret ptr %object
}

; With the GIL held on entry and on return; released while another thread runs.
define internal i32 @gc_session_lock(ptr %lock) {
entry:
  %tried = call i32 @gc_try_lock(ptr %lock)
  %contended = icmp eq i32 %tried, 2
  br i1 %contended, label %wait, label %done

wait:
  %thread = call ptr @PyEval_SaveThread()
  %waited = call i32 @gc_lock(ptr %lock)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %done

done:
  %code = phi i32 [ %tried, %entry ], [ %waited, %wait ]
  ret i32 %code
}

; Lets Python start the pool's workers; false if that raised.
define internal i1 @gc_start_pool(ptr %ctx) {
entry:
  %pool.at = getelementptr %Context, ptr %ctx, i32 0, i32 14
  %pool = load ptr, ptr %pool.at
  %started.at = getelementptr %Pool, ptr %pool, i32 0, i32 17
  store i64 1, ptr %started.at
  %start.at = getelementptr %Pool, ptr %pool, i32 0, i32 18
  %start = load ptr, ptr %start.at
  %answer = call ptr @PyObject_CallObject(ptr %start, ptr null)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %no, label %yes

yes:
  call void @Py_DecRef(ptr %answer)
  ret i1 true

no:
  ret i1 false
}

define internal void @gc_discard(ptr %objects, i64 %count) {
entry:
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %exit

look:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  %empty = icmp eq ptr %object, null
  br i1 %empty, label %next, label %drop

drop:
  call void @Py_DecRef(ptr %object)
  br label %next

next:
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret void
}

; What Python gets of a good run; takes over the references in %objects. The lock is
; free by now: a new tuple can start Python's garbage collector, and with it code that
; calls back into the session.
define internal ptr @gc_result(ptr %ctx, ptr %objects, ptr %cells, i64 %form) {
entry:
  %outputs.at = getelementptr %Context, ptr %ctx, i32 0, i32 4
  %outputs = load i64, ptr %outputs.at
  %table.at = getelementptr %Context, ptr %ctx, i32 0, i32 5
  %table = load ptr, ptr %table.at
  %scalar.at = getelementptr %Context, ptr %ctx, i32 0, i32 17
  %make = load ptr, ptr %scalar.at
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %outputs
  br i1 %more, label %look, label %give

look:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  ; Only scalars have no object yet.
  %missing = icmp eq ptr %object, null
  br i1 %missing, label %scalar, label %next

scalar:
  %cell = getelementptr [16 x i8], ptr %cells, i64 %i
  %dtype.at = getelementptr %Output, ptr %table, i64 %i, i32 4
  %dtype = load ptr, ptr %dtype.at
  %made = call ptr %make(ptr %cell, ptr %dtype, ptr null)
  store ptr %made, ptr %object.at
  %raised = icmp eq ptr %made, null
  br i1 %raised, label %fail, label %next

next:
  %i.next = add i64 %i, 1
  br label %each

give:
  switch i64 %form, label %several [
    i64 1, label %one
    i64 2, label %in.list
  ]

one:
  %only = load ptr, ptr %objects
  ret ptr %only

several:
  %tuple = call ptr @PyTuple_New(i64 %outputs)
  %full = icmp eq ptr %tuple, null
  br i1 %full, label %fail, label %fill

fill:
  %k = phi i64 [ 0, %several ], [ %k.next, %set ]
  %rest = icmp slt i64 %k, %outputs
  br i1 %rest, label %set, label %complete

set:
  %item.at = getelementptr ptr, ptr %objects, i64 %k
  %item = load ptr, ptr %item.at
  %ignored = call i32 @PyTuple_SetItem(ptr %tuple, i64 %k, ptr %item)
  %k.next = add i64 %k, 1
  br label %fill

complete:
  ret ptr %tuple

in.list:
  %list = call ptr @PyList_New(i64 %outputs)
  %list.full = icmp eq ptr %list, null
  br i1 %list.full, label %fail, label %list.fill

list.fill:
  %m = phi i64 [ 0, %in.list ], [ %m.next, %list.set ]
  %list.rest = icmp slt i64 %m, %outputs
  br i1 %list.rest, label %list.set, label %list.complete

list.set:
  %element.at = getelementptr ptr, ptr %objects, i64 %m
  %element = load ptr, ptr %element.at
  %list.ignored = call i32 @PyList_SetItem(ptr %list, i64 %m, ptr %element)
  %m.next = add i64 %m, 1
  br label %list.fill

list.complete:
  ret ptr %list

fail:
  call void @gc_discard(ptr %objects, i64 %outputs)
  ret ptr null
}
