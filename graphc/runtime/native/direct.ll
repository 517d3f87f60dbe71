; The call that `make_callable` hands to the user: nothing of Python lies between it and
; the program. Whatever is not a plain success is left to a function in Python.

; Mirrored by DirectStruct.
%Direct = type {
  ptr,  ; 0 the builtin of an executable (which keeps it alive), or null
  ptr,  ; 1 its %Context
  i64,  ; 2 form of the answer
  ptr,  ; 3 arrays to write to, one (or null) for each output, or null
  ptr   ; 4 the Python function for everything else
}

@PyLong_Type = external global i8
@PyBytes_Type = external global i8
@PyExc_MemoryError = external global ptr
@PyExc_ValueError = external global ptr
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare i32 @PyErr_ExceptionMatches(ptr)
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Restore(ptr, ptr, ptr)

; METH_FASTCALL | METH_KEYWORDS
define ptr @gc_direct(ptr %self, ptr %args, i64 %nargs, ptr %names) {
entry:
  %direct = call ptr @PyLong_AsVoidPtr(ptr %self)
  %builtin = load ptr, ptr %direct
  %aimed = icmp ne ptr %builtin, null
  %plain = icmp eq ptr %names, null
  %quick = and i1 %aimed, %plain
  br i1 %quick, label %run, label %other

run:
  ; Another thread may aim it elsewhere while the program runs.
  call void @Py_IncRef(ptr %builtin)
  %ctx.at = getelementptr %Direct, ptr %direct, i32 0, i32 1
  %ctx = load ptr, ptr %ctx.at
  %form.at = getelementptr %Direct, ptr %direct, i32 0, i32 2
  %form = load i64, ptr %form.at
  %given.at = getelementptr %Direct, ptr %direct, i32 0, i32 3
  %given = load ptr, ptr %given.at
  %answer = call ptr @gc_enter(ptr %ctx, ptr %args, i64 %nargs, i64 %form, ptr %given)
  call void @Py_DecRef(ptr %builtin)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %exception, label %look

look:
  %type.at = getelementptr %Array, ptr %answer, i32 0, i32 1
  %type = load ptr, ptr %type.at
  %mismatch = icmp eq ptr %type, @PyLong_Type
  %failure = icmp eq ptr %type, @PyBytes_Type
  %bad = or i1 %mismatch, %failure
  br i1 %bad, label %again, label %good

good:
  ret ptr %answer

again:
  call void @Py_DecRef(ptr %answer)
  br label %other

exception:
  ; What NumPy raises for an array that is too large has a name of ours.
  %memory = load ptr, ptr @PyExc_MemoryError
  %value = load ptr, ptr @PyExc_ValueError
  %is.memory = call i32 @PyErr_ExceptionMatches(ptr %memory)
  %is.value = call i32 @PyErr_ExceptionMatches(ptr %value)
  %either = or i32 %is.memory, %is.value
  %named = icmp ne i32 %either, 0
  br i1 %named, label %fetch, label %pass

fetch:
  ; What a handler of signals has raised comes from Python: it has a traceback.
  %kind.at = alloca ptr
  %error.at = alloca ptr
  %trace.at = alloca ptr
  call void @PyErr_Fetch(ptr %kind.at, ptr %error.at, ptr %trace.at)
  %kind = load ptr, ptr %kind.at
  %error = load ptr, ptr %error.at
  %trace = load ptr, ptr %trace.at
  %handled = icmp ne ptr %trace, null
  br i1 %handled, label %restore, label %drop

restore:
  call void @PyErr_Restore(ptr %kind, ptr %error, ptr %trace)
  ret ptr null

drop:
  call void @Py_DecRef(ptr %kind)
  call void @Py_DecRef(ptr %error)
  br label %other

pass:
  ret ptr null

other:
  %fallback.at = getelementptr %Direct, ptr %direct, i32 0, i32 4
  %fallback = load ptr, ptr %fallback.at
  %slow = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr %names)
  ret ptr %slow
}

; Whether an array that is given for an output has its shape, and its memory to itself. Its
; dtype and flags were looked at when it was given. %views is null for a late output, which
; is copied when the inputs are done with.
define internal i1 @gc_given_fits(ptr %ctx, ptr %output, ptr %dims, ptr %array, ptr %views) {
entry:
  %rank.at = getelementptr %Output, ptr %output, i32 0, i32 1
  %rank = load i64, ptr %rank.at
  %first.at = getelementptr %Output, ptr %output, i32 0, i32 3
  %first = load i64, ptr %first.at
  %wanted = getelementptr i64, ptr %dims, i64 %first
  %nd.at = getelementptr %Array, ptr %array, i32 0, i32 3
  %nd32 = load i32, ptr %nd.at
  %nd = sext i32 %nd32 to i64
  %shape.at = getelementptr %Array, ptr %array, i32 0, i32 4
  %shape = load ptr, ptr %shape.at
  %data.at = getelementptr %Array, ptr %array, i32 0, i32 2
  %data = load ptr, ptr %data.at
  %start = ptrtoint ptr %data to i64
  %bytes = call i64 @gc_output_bytes(ptr %output, ptr %dims)
  %end = add i64 %start, %bytes
  %ranked = icmp eq i64 %nd, %rank
  br i1 %ranked, label %dim, label %no

dim:
  %d = phi i64 [ 0, %entry ], [ %d.next, %same ]
  %more = icmp slt i64 %d, %rank
  br i1 %more, label %compare, label %inputs

compare:
  %wanted.at = getelementptr i64, ptr %wanted, i64 %d
  %wanted.size = load i64, ptr %wanted.at
  %size.at = getelementptr i64, ptr %shape, i64 %d
  %size = load i64, ptr %size.at
  %equal = icmp eq i64 %size, %wanted.size
  br i1 %equal, label %same, label %no

same:
  %d.next = add i64 %d, 1
  br label %dim

inputs:
  %count.at = getelementptr %Context, ptr %ctx, i32 0, i32 2
  %count = load i64, ptr %count.at
  %table.at = getelementptr %Context, ptr %ctx, i32 0, i32 3
  %table = load ptr, ptr %table.at
  %copied = icmp eq ptr %views, null
  br i1 %copied, label %yes, label %each

each:
  %i = phi i64 [ 0, %inputs ], [ %i.next, %apart ]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %measure, label %yes

measure:
  %view = getelementptr %View, ptr %views, i64 %i
  %input.data = load ptr, ptr %view
  %input = getelementptr %Input, ptr %table, i64 %i
  %input.rank.at = getelementptr %Input, ptr %input, i32 0, i32 1
  %input.rank = load i64, ptr %input.rank.at
  %itemsize.at = getelementptr %Input, ptr %input, i32 0, i32 2
  %itemsize = load i64, ptr %itemsize.at
  %sizes.at = getelementptr %View, ptr %view, i32 0, i32 7
  %sizes = load ptr, ptr %sizes.at
  br label %axis

axis:
  %k = phi i64 [ 0, %measure ], [ %k.next, %times ]
  %extent = phi i64 [ %itemsize, %measure ], [ %product, %times ]
  %further = icmp slt i64 %k, %input.rank
  br i1 %further, label %times, label %overlap

times:
  %along.at = getelementptr i64, ptr %sizes, i64 %k
  %along = load i64, ptr %along.at
  %product = mul i64 %extent, %along
  %k.next = add i64 %k, 1
  br label %axis

overlap:
  %input.start = ptrtoint ptr %input.data to i64
  %input.end = add i64 %input.start, %extent
  %before = icmp ule i64 %input.end, %start
  %behind = icmp uge i64 %input.start, %end
  %clear = or i1 %before, %behind
  br i1 %clear, label %apart, label %no

apart:
  %i.next = add i64 %i, 1
  br label %each

yes:
  ret i1 true

no:
  ret i1 false
}
