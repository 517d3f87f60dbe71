; From Python's arguments to checked views and bound symbols.

; Takes the arguments' buffers and binds the symbols. Returns the number of inputs, or
; the first argument that does not fit; the views up to and including it are set.
define internal i64 @gc_bind(ptr %ctx, ptr %args, ptr %views, ptr %syms) {
entry:
  %inputs.at = getelementptr %Context, ptr %ctx, i32 0, i32 2
  %inputs = load i64, ptr %inputs.at
  %table.at = getelementptr %Context, ptr %ctx, i32 0, i32 3
  %table = load ptr, ptr %table.at
  %ndarray.at = getelementptr %Context, ptr %ctx, i32 0, i32 18
  %ndarray = load ptr, ptr %ndarray.at
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %take, label %exit

take:
  %object.at = getelementptr ptr, ptr %args, i64 %i
  %object = load ptr, ptr %object.at
  %input = getelementptr %Input, ptr %table, i64 %i
  %view = getelementptr %View, ptr %views, i64 %i
  %taken = call i1 @gc_take(ptr %object, ptr %input, ptr %view, ptr %ndarray)
  br i1 %taken, label %shape, label %exit

shape:
  %rank.at = getelementptr %Input, ptr %input, i32 0, i32 1
  %rank = load i64, ptr %rank.at
  %dims.at = getelementptr %Input, ptr %input, i32 0, i32 4
  %dims = load ptr, ptr %dims.at
  %sizes.at = getelementptr %View, ptr %view, i32 0, i32 7
  %sizes = load ptr, ptr %sizes.at
  br label %dim

dim:
  %d = phi i64 [ 0, %shape ], [ %d.next, %same ]
  %left = icmp slt i64 %d, %rank
  br i1 %left, label %compare, label %next

compare:
  %size.at = getelementptr i64, ptr %sizes, i64 %d
  %size = load i64, ptr %size.at
  %dim.at = getelementptr i64, ptr %dims, i64 %d
  %expected = load i64, ptr %dim.at
  %fixed = icmp sge i64 %expected, 0
  br i1 %fixed, label %check, label %symbol

symbol:
  %index = xor i64 %expected, -1
  %sym.at = getelementptr i64, ptr %syms, i64 %index
  %bound = load i64, ptr %sym.at
  %first = icmp slt i64 %bound, 0
  %value = select i1 %first, i64 %size, i64 %bound
  store i64 %value, ptr %sym.at
  br label %check

check:
  %wanted = phi i64 [ %expected, %compare ], [ %value, %symbol ]
  %equal = icmp eq i64 %size, %wanted
  br i1 %equal, label %same, label %exit

same:
  %d.next = add i64 %d, 1
  br label %dim

next:
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret i64 %i
}

; Fills a view of one argument; false if it is not an aligned C-contiguous array of the
; input's rank and type. Either way the view can be released.
define internal i1 @gc_take(ptr %object, ptr %input, ptr %view, ptr %ndarray) {
entry:
  %owner.at = getelementptr %View, ptr %view, i32 0, i32 1
  store ptr null, ptr %owner.at
  %rank.at = getelementptr %Input, ptr %input, i32 0, i32 1
  %rank = load i64, ptr %rank.at
  %type.at = getelementptr %Array, ptr %object, i32 0, i32 1
  %type = load ptr, ptr %type.at
  %plain = icmp eq ptr %type, %ndarray
  br i1 %plain, label %array, label %buffer

array:
  ; An ndarray of the very dtype object: read it as NumPy's macros do, at a fifth of
  ; the buffer protocol's cost. Its sizes are read before the GIL can be released.
  %dtype.at = getelementptr %Array, ptr %object, i32 0, i32 7
  %dtype = load ptr, ptr %dtype.at
  %known.at = getelementptr %Input, ptr %input, i32 0, i32 5
  %known = load ptr, ptr %known.at
  %typed = icmp eq ptr %dtype, %known
  br i1 %typed, label %direct, label %buffer

direct:
  %data.at = getelementptr %Array, ptr %object, i32 0, i32 2
  %data = load ptr, ptr %data.at
  %nd.at = getelementptr %Array, ptr %object, i32 0, i32 3
  %nd32 = load i32, ptr %nd.at
  %nd = sext i32 %nd32 to i64
  %shape.at = getelementptr %Array, ptr %object, i32 0, i32 4
  %shape = load ptr, ptr %shape.at
  %flags.at = getelementptr %Array, ptr %object, i32 0, i32 8
  %flags = load i32, ptr %flags.at
  store ptr %data, ptr %view
  %sizes.at = getelementptr %View, ptr %view, i32 0, i32 7
  store ptr %shape, ptr %sizes.at
  ; NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
  %bits = and i32 %flags, 257
  %usable = icmp eq i32 %bits, 257
  %ranked = icmp eq i64 %nd, %rank
  %direct.fits = and i1 %usable, %ranked
  ret i1 %direct.fits

buffer:
  ; PyBUF_C_CONTIGUOUS | PyBUF_FORMAT
  %error = call i32 @PyObject_GetBuffer(ptr %object, ptr %view, i32 60)
  %got = icmp eq i32 %error, 0
  br i1 %got, label %inspect, label %refused

refused:
  call void @PyErr_Clear()
  store ptr null, ptr %owner.at
  ret i1 false

inspect:
  %start = load ptr, ptr %view
  %bytes.at = getelementptr %View, ptr %view, i32 0, i32 2
  %bytes = load i64, ptr %bytes.at
  %itemsize.at = getelementptr %View, ptr %view, i32 0, i32 3
  %itemsize = load i64, ptr %itemsize.at
  %ndim.at = getelementptr %View, ptr %view, i32 0, i32 5
  %ndim32 = load i32, ptr %ndim.at
  %ndim = sext i32 %ndim32 to i64
  %size.at = getelementptr %Input, ptr %input, i32 0, i32 2
  %size = load i64, ptr %size.at
  %address = ptrtoint ptr %start to i64
  %mask = sub i64 %size, 1
  %offset = and i64 %address, %mask
  %level = icmp eq i64 %offset, 0
  %empty = icmp eq i64 %bytes, 0
  %aligned = or i1 %level, %empty
  %sized = icmp eq i64 %itemsize, %size
  %rankful = icmp eq i64 %ndim, %rank
  %format.at = getelementptr %View, ptr %view, i32 0, i32 6
  %format = load ptr, ptr %format.at
  %accepted.at = getelementptr %Input, ptr %input, i32 0, i32 3
  %accepted = load i64, ptr %accepted.at
  %named = call i1 @gc_format(ptr %format, i64 %accepted)
  %a = and i1 %aligned, %sized
  %b = and i1 %rankful, %named
  %fits = and i1 %a, %b
  ret i1 %fits
}

; Is the format one of the accepted characters, in the machine's byte order?
define internal i1 @gc_format(ptr %format, i64 %accepted) {
entry:
  ; The protocol says that no format means bytes.
  %none = icmp eq ptr %format, null
  br i1 %none, label %bytes, label %prefix

bytes:
  br label %scan

prefix:
  %c0 = load i8, ptr %format
  switch i8 %c0, label %bare [
    i8 64, label %prefixed
    i8 61, label %prefixed
    i8 60, label %prefixed
  ]

prefixed:
  ; '@', '=', and '<': every target here is little-endian
  %tail = getelementptr i8, ptr %format, i64 1
  br label %bare

bare:
  %at = phi ptr [ %format, %prefix ], [ %tail, %prefixed ]
  %c = load i8, ptr %at
  %ended = icmp eq i8 %c, 0
  br i1 %ended, label %no, label %second

second:
  %after.at = getelementptr i8, ptr %at, i64 1
  %after = load i8, ptr %after.at
  %alone = icmp eq i8 %after, 0
  br i1 %alone, label %scan, label %no

scan:
  ; 66 is 'B'
  %wanted = phi i8 [ 66, %bytes ], [ %c, %second ]
  br label %try

try:
  %rest = phi i64 [ %accepted, %scan ], [ %shifted, %other ]
  %candidate = trunc i64 %rest to i8
  %hit = icmp eq i8 %candidate, %wanted
  br i1 %hit, label %yes, label %other

other:
  %shifted = lshr i64 %rest, 8
  %out = icmp eq i64 %shifted, 0
  br i1 %out, label %no, label %try

yes:
  ret i1 true

no:
  ret i1 false
}

define internal void @gc_release(ptr %views, i64 %count) {
entry:
  br label %each

each:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %exit

look:
  %view = getelementptr %View, ptr %views, i64 %i
  %owner.at = getelementptr %View, ptr %view, i32 0, i32 1
  %owner = load ptr, ptr %owner.at
  %direct = icmp eq ptr %owner, null
  br i1 %direct, label %next, label %release

release:
  call void @PyBuffer_Release(ptr %view)
  br label %next

next:
  %i.next = add i64 %i, 1
  br label %each

exit:
  ret void
}
