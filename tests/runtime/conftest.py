"""Programs written by hand, and the contexts that call them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.runtime import jit, native
from graphc.runtime.native import CallContext, Input, Output, Signature

F32, F64, I64, U8, BOOL = (np.dtype(name) for name in ("f4", "f8", "i8", "u1", "?"))
AT = native.context_offsets()

PROGRAMS = f"""
@PyExc_ValueError = external global ptr
declare void @PyErr_SetString(ptr, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
@message = internal constant [7 x i8] c"by run\\00"

define internal ptr @buffer(ptr %ctx, i64 %slot) {{
  %buffers.at = getelementptr i8, ptr %ctx, i64 {AT["buffers"]}
  %buffers = load ptr, ptr %buffers.at
  %at = getelementptr ptr, ptr %buffers, i64 %slot
  %data = load ptr, ptr %at
  ret ptr %data
}}

define internal ptr @dim(ptr %ctx, i64 %index) {{
  %dims.at = getelementptr i8, ptr %ctx, i64 {AT["dims"]}
  %dims = load ptr, ptr %dims.at
  %at = getelementptr i64, ptr %dims, i64 %index
  ret ptr %at
}}

define internal ptr @status(ptr %ctx) {{
  %at = getelementptr i8, ptr %ctx, i64 {AT["status"]}
  %status = load ptr, ptr %at
  ret ptr %status
}}

; dims = {{ n, 4 n }}: the size of a vector and of an arena that holds it
define i64 @plan(ptr %syms, ptr %dims) {{
  %n = load i64, ptr %syms
  store i64 %n, ptr %dims
  %bytes = mul i64 %n, 4
  %bytes.at = getelementptr i64, ptr %dims, i64 1
  store i64 %bytes, ptr %bytes.at
  ret i64 %n
}}

define i64 @plan.nothing(ptr %syms, ptr %dims) {{
  ret i64 0
}}

define i64 @plan.overflow(ptr %syms, ptr %dims) {{
  ret i64 -1
}}

define i64 @plan.vast(ptr %syms, ptr %dims) {{
  %bytes.at = getelementptr i64, ptr %dims, i64 1
  store i64 1152921504606846976, ptr %bytes.at
  ret i64 1
}}

define i64 @plan.vast.output(ptr %syms, ptr %dims) {{
  store i64 1152921504606846976, ptr %dims
  ret i64 1
}}

; y = 2 x, 40 times over so that threads get in each other's way
define i32 @double(ptr %ctx) {{
entry:
  %x = call ptr @buffer(ptr %ctx, i64 0)
  %y = call ptr @buffer(ptr %ctx, i64 1)
  %n.at = call ptr @dim(ptr %ctx, i64 0)
  %n = load i64, ptr %n.at
  br label %again

again:
  %turn = phi i64 [ 0, %entry ], [ %turn.next, %done ]
  br label %head

head:
  %i = phi i64 [ 0, %again ], [ %next, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done

body:
  %from = getelementptr float, ptr %x, i64 %i
  %to = getelementptr float, ptr %y, i64 %i
  %value = load float, ptr %from
  %twice = fadd float %value, %value
  store float %twice, ptr %to
  %next = add i64 %i, 1
  br label %head

done:
  %turn.next = add i64 %turn, 1
  %rest = icmp slt i64 %turn.next, 40
  br i1 %rest, label %again, label %exit

exit:
  ret i32 0
}}

; Inputs: x float[n, 3], k int64[n]. Outputs: k copied, x[0, 0] as a scalar, n.
define i32 @several(ptr %ctx) {{
  %x = call ptr @buffer(ptr %ctx, i64 0)
  %k = call ptr @buffer(ptr %ctx, i64 1)
  %copy = call ptr @buffer(ptr %ctx, i64 2)
  %first = call ptr @buffer(ptr %ctx, i64 3)
  %size = call ptr @buffer(ptr %ctx, i64 4)
  %n.at = call ptr @dim(ptr %ctx, i64 0)
  %n = load i64, ptr %n.at
  %bytes = mul i64 %n, 8
  call void @llvm.memcpy.p0.p0.i64(ptr %copy, ptr %k, i64 %bytes, i1 false)
  %value = load float, ptr %x
  store float %value, ptr %first
  store i64 %n, ptr %size
  ret i32 0
}}

; Rank 0 in, its square out.
define i32 @square(ptr %ctx) {{
  %x = call ptr @buffer(ptr %ctx, i64 0)
  %y = call ptr @buffer(ptr %ctx, i64 1)
  %value = load double, ptr %x
  %square = fmul double %value, %value
  store double %square, ptr %y
  ret i32 0
}}

; The positive elements of x, in the arena; their number is found here.
define i32 @positive(ptr %ctx) {{
entry:
  %x = call ptr @buffer(ptr %ctx, i64 0)
  %arena.at = getelementptr i8, ptr %ctx, i64 {AT["arena"]}
  %arena = load ptr, ptr %arena.at
  %buffers.at = getelementptr i8, ptr %ctx, i64 {AT["buffers"]}
  %buffers = load ptr, ptr %buffers.at
  %slot.at = getelementptr ptr, ptr %buffers, i64 1
  store ptr %arena, ptr %slot.at
  %n.at = call ptr @dim(ptr %ctx, i64 0)
  %n = load i64, ptr %n.at
  br label %head

head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %kept = phi i64 [ 0, %entry ], [ %kept.next, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %exit

body:
  %from = getelementptr float, ptr %x, i64 %i
  %value = load float, ptr %from
  %to = getelementptr float, ptr %arena, i64 %kept
  store float %value, ptr %to
  %keep = fcmp ogt float %value, 0.0
  %one = zext i1 %keep to i64
  %kept.next = add i64 %kept, %one
  %next = add i64 %i, 1
  br label %head

exit:
  %found.at = call ptr @dim(ptr %ctx, i64 2)
  store i64 %kept, ptr %found.at
  ret i32 0
}}

define i32 @fail(ptr %ctx) {{
  %status = call ptr @status(ptr %ctx)
  %n.at = call ptr @dim(ptr %ctx, i64 0)
  %n = load i64, ptr %n.at
  store i64 %n, ptr %status
  %last = getelementptr i64, ptr %status, i64 7
  store i64 -5, ptr %last
  ret i32 7
}}

define i32 @raise(ptr %ctx) {{
  %type = load ptr, ptr @PyExc_ValueError
  call void @PyErr_SetString(ptr %type, ptr @message)
  ret i32 -1
}}

; The arena's address as an output.
define i32 @where(ptr %ctx) {{
  %arena.at = getelementptr i8, ptr %ctx, i64 {AT["arena"]}
  %arena = load i64, ptr %arena.at
  %y = call ptr @buffer(ptr %ctx, i64 1)
  store i64 %arena, ptr %y
  ret i32 0
}}
"""


@pytest.fixture(scope="module")
def programs() -> jit.LoadedObject:
    return jit.load_object(jit.compile_object(PROGRAMS, jit.named_target("generic")))


Build = Callable[..., CallContext]


@pytest.fixture
def build(programs: jit.LoadedObject) -> Build:
    def make(
        run: str, inputs: list[Input], outputs: list[Output], plan: str = "plan", **more: Any
    ) -> CallContext:
        options = {name: more.pop(name) for name in ("lock", "release_work") if name in more}
        more = {"symbols": 1, "dims": 3, "buffers": 5, **more}
        return CallContext(
            Signature(inputs, outputs, **more),
            programs.address(plan),
            programs.address(run),
            keep=programs,
            **options,
        )

    return make


VECTOR = [Input(0, F32, (-1,))]


@pytest.fixture
def double(build: Build) -> CallContext:
    return build("double", VECTOR, [Output(1, F32, 1)], single=True)


@pytest.fixture
def several(build: Build) -> Callable[..., Any]:
    inputs = [Input(0, F32, (-1, 3)), Input(1, I64, (-1,))]
    outputs = [Output(2, I64, 1), Output(3, F32, 0, scalar=True), Output(4, I64, 0)]
    return build("several", inputs, outputs).function()
