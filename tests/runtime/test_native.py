"""The call from Python, with plans and runs written by hand, and the JIT under it."""

import array
import contextlib
import ctypes
import dataclasses
import gc
import os
import re
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.runtime import jit, library, native, structs
from graphc.runtime.native import CallContext, Failure, FailureCode, Input, Output, Signature

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


def vector(size: int) -> np.ndarray:
    return np.arange(1, size + 1, dtype=F32)


def misaligned(size: int) -> np.ndarray:
    return np.zeros(4 * size + 1, U8)[1:].view(F32)


class TestArguments:
    def test_arrays_of_any_size_run_in_place(self, double: CallContext) -> None:
        call = double.function()
        for size in (1, 5, 1000, 0, 3):
            x = vector(size)
            y = call(x)
            assert type(y) is np.ndarray
            assert y.dtype == F32
            np.testing.assert_array_equal(y, 2 * x)

    @pytest.mark.parametrize(
        "feed",
        [
            memoryview(vector(3)),
            array.array("f", [1, 2, 3]),
            (ctypes.c_float * 3)(1, 2, 3),
            np.broadcast_to(vector(3), (1, 3))[0],
            vector(3).view(np.memmap),
            vector(6).reshape(1, 6, 1)[0, :3, 0],
            memoryview(vector(3).tobytes()).cast("f"),
        ],
        ids=lambda feed: type(feed).__name__,
    )
    def test_whatever_has_such_a_buffer_is_an_argument(
        self, double: CallContext, feed: Any
    ) -> None:
        np.testing.assert_array_equal(double.function()(feed), [2, 4, 6])

    def test_read_only_and_unshared_dtypes(self, double: CallContext) -> None:
        x = vector(3)
        x.flags.writeable = False
        np.testing.assert_array_equal(double.function()(x), [2, 4, 6])
        own = np.dtype("f4", metadata={"a": 1})
        np.testing.assert_array_equal(double.function()(vector(3).view(own)), [2, 4, 6])

    @pytest.mark.parametrize(
        "feed",
        [
            vector(3).astype(F64),
            vector(3).astype(np.int32),
            vector(3).astype(">f4"),
            np.zeros((3, 1), F32),
            np.float32(1),
            vector(6)[::2],
            vector(3)[::-1],
            misaligned(3),
            memoryview(misaligned(3)),
            memoryview(vector(3).astype(F64)),
            memoryview(vector(6))[::2],
            memoryview(np.zeros((3, 1), F32)),
            np.zeros(3, [("a", F32)]),
            np.zeros(3, "M8[s]"),
            [1.0, 2.0, 3.0],
            3.0,
            None,
            b"12345678",
        ],
    )
    def test_what_does_not_fit_is_named_without_an_exception(
        self, double: CallContext, feed: Any
    ) -> None:
        assert double.function()(feed) == -1

    def test_the_first_argument_that_does_not_fit(self, several: Callable[..., Any]) -> None:
        x, k = np.ones((4, 3), F32), np.arange(4)
        assert several(x, k)[2] == 4
        assert several(x[:, :2].copy(), k) == -1
        assert several(np.ones((4, 4), F32), k) == -1
        assert several(x, k[:3]) == -2
        assert several(x[:3], k) == -2
        assert several(x, k.astype(np.int32)) == -2
        assert several(x.astype(F64), 1) == -1

    def test_too_few_and_too_many(self, several: Callable[..., Any]) -> None:
        assert several() == -3
        assert several(np.ones((1, 3), F32)) == -3
        assert several(1, 2, 3) == -3

    def test_a_mismatch_gives_every_buffer_back(self, several: Callable[..., Any]) -> None:
        x = array.array("b", bytes(12))
        assert several(memoryview(x).cast("b").cast("f", (1, 3)), "not an array") == -2
        x.append(1)

    def test_kinds_share_their_formats_but_not_their_sizes(self, build: Build) -> None:
        call = build("double", [Input(0, I64, (-1,))], [Output(1, F32, 1)], dims=8).function()
        empty = np.zeros(0, np.longlong)
        assert empty.dtype.char == "q"
        assert type(call(empty)) is tuple
        assert call(np.zeros(0, np.uint64)) == -1
        assert call(np.zeros(0, np.int32)) == -1

    @pytest.mark.parametrize("dtype", [U8, BOOL])
    def test_bytes_are_unsigned_and_bool_is_its_own(
        self, build: Build, dtype: np.dtype[Any]
    ) -> None:
        call = build("double", [Input(0, dtype, (-1,))], [Output(1, F32, 1)]).function()
        assert (call(b"") == -1) == (dtype is BOOL)
        assert (call(np.zeros(0, BOOL)) == -1) == (dtype is U8)


class TestResults:
    def test_several_outputs_are_a_tuple(self, several: Callable[..., Any]) -> None:
        x, k = np.full((2, 3), 7, F32), np.array([5, 6])
        copy, first, size = several(x, k)
        np.testing.assert_array_equal(copy, k)
        assert type(first) is np.float32
        assert first == 7
        assert type(size) is np.ndarray
        assert size.shape == ()
        assert size == 2

    def test_rank_0_in_and_out(self, build: Build) -> None:
        inputs, outputs = [Input(0, F64, ())], [Output(1, F64, 0, scalar=True)]
        call = build("square", inputs, outputs, plan="plan.nothing", single=True).function()
        for feed in (np.float64(3), np.array(3.0), memoryview(np.array(3.0))):
            answer = call(feed)
            assert type(answer) is np.float64
            assert answer == 9
        assert call(3.0) == -1

    def test_no_outputs_and_no_inputs(self, build: Build) -> None:
        context = build("square", [], [], plan="plan.nothing")
        variable, square = ctypes.c_double(4), ctypes.c_double()
        context.buffers[0] = ctypes.addressof(variable)
        context.buffers[1] = ctypes.addressof(square)
        assert context.function()() == ()
        assert square.value == 16

    def test_late_outputs_are_copied(self, build: Build) -> None:
        outputs = [Output(1, F32, 1, first_dim=2, late=True)]
        call = build("positive", VECTOR, outputs, arena_dim=1, single=True).function()
        first = call(np.array([1, -2, 3, -4, 5], F32))
        np.testing.assert_array_equal(call(np.array([-1, 7], F32)), [7])
        np.testing.assert_array_equal(first, [1, 3, 5])
        assert call(np.array([-1], F32)).shape == (0,)
        assert call(vector(0)).shape == (0,)

    def test_a_late_scalar(self, build: Build) -> None:
        outputs = [Output(1, F32, 0, scalar=True, late=True)]
        call = build("positive", VECTOR, outputs, arena_dim=1, single=True).function()
        assert call(np.array([-1, 7, -3], F32)) == np.float32(7)

    def test_a_scalar_has_rank_0(self, build: Build) -> None:
        with pytest.raises(ValueError, match="cannot be a scalar"):
            build("square", [], [Output(0, F64, 1, scalar=True)])


class TestFailures:
    def failure(self, call: Callable[..., Any], *feeds: Any) -> Failure:
        answer = call(*feeds)
        assert type(answer) is bytes
        return Failure.decode(answer)

    def test_the_status_is_this_calls_own(self, build: Build) -> None:
        call = build("fail", VECTOR, [Output(1, F32, 1)]).function()
        first, second = call(vector(3)), call(vector(4))
        assert Failure.decode(first) == Failure(7, (3, 0, 0, 0, 0, 0, 0, -5))
        assert Failure.decode(second).status[0] == 4

    def test_an_exception_of_the_run_is_raised(self, build: Build) -> None:
        call = build("raise", VECTOR, [Output(1, F32, 1)]).function()
        with pytest.raises(ValueError, match="by run"):
            call(vector(3))

    def test_sizes_that_overflow(self, build: Build) -> None:
        call = build("double", VECTOR, [Output(1, F32, 1)], plan="plan.overflow").function()
        assert self.failure(call, vector(3)).code == FailureCode.OVERFLOW

    def test_an_arena_that_does_not_fit(self, build: Build) -> None:
        outputs = [Output(1, F32, 1)]
        call = build("double", VECTOR, outputs, plan="plan.vast", arena_dim=1).function()
        failure = self.failure(call, vector(3))
        assert failure.code == FailureCode.OUT_OF_MEMORY
        assert failure.status[0] == 1 << 60

    def test_an_output_that_does_not_fit(self, build: Build) -> None:
        call = build("double", VECTOR, [Output(1, U8, 1)], plan="plan.vast.output").function()
        with pytest.raises(MemoryError):
            call(vector(3))

    def test_a_run_inside_a_run_of_the_same_session(self, double: CallContext) -> None:
        with double.lock:
            assert self.failure(double.function(), vector(3)).code == FailureCode.REENTRANT
            with pytest.raises(RuntimeError, match="already inside a run"), double.lock:
                pass
        assert double.function()(vector(1)) == 2

    def test_a_failed_call_leaves_the_session_usable(self, build: Build) -> None:
        lock = native.SessionLock()
        good = build("double", VECTOR, [Output(1, F32, 1)], lock=lock, single=True).function()
        for run in ("fail", "raise"):
            bad = build(run, VECTOR, [Output(1, F32, 1)], lock=lock).function()
            if run == "raise":
                with pytest.raises(ValueError, match="by run"):
                    bad(vector(3))
            else:
                bad(vector(3))
            np.testing.assert_array_equal(good(vector(3)), [2, 4, 6])


class TestArena:
    def test_it_is_aligned_grows_and_stays(self, build: Build) -> None:
        outputs = [Output(1, I64, 0, scalar=True)]
        context = build("where", VECTOR, outputs, arena_dim=1, single=True)
        call = context.function()
        assert call(vector(0)) == 0
        small = call(vector(100))
        assert small
        assert small % 64 == 0
        assert call(vector(50)) == small
        large = call(vector(2 << 20))
        assert large % (2 << 20) == 0
        assert context.struct.arena_capacity == 8 << 20
        assert call(vector(100)) == large

    def test_it_is_freed_with_the_context(self, build: Build) -> None:
        outputs = [Output(1, I64, 0, scalar=True)]
        before = resident_bytes()
        x = np.zeros(1 << 22, F32)
        for _ in range(64):
            build("positive", VECTOR, [*outputs], arena_dim=1).function()(x)
        assert resident_bytes() - before < 400 << 20


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs /proc")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class TestThreads:
    @pytest.mark.parametrize("release_work", [0, 1 << 60])
    def test_one_context_from_several_threads(self, build: Build, release_work: int) -> None:
        outputs = [Output(1, F32, 1)]
        call = build("double", VECTOR, outputs, single=True, release_work=release_work).function()
        wrong: list[int] = []

        def hammer(sizes: list[int]) -> None:
            feeds = [vector(size) for size in sizes]
            for turn in range(1500):
                x = feeds[turn % len(feeds)]
                y = call(x)
                if y.shape != x.shape or not (y == 2 * x).all():
                    wrong.append(turn)

        sizes = [[1, 700], [33, 0, 5], [1024]]
        threads = [threading.Thread(target=hammer, args=(each,)) for each in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_a_long_run_lets_other_threads_work(self, build: Build) -> None:
        outputs = [Output(1, F32, 1)]
        call = build("double", VECTOR, outputs, single=True, release_work=0).function()
        x = vector(1 << 20)
        running = threading.Event()
        turns = 0

        def work() -> None:
            running.set()
            for _ in range(10):
                call(x)
            running.clear()

        thread = threading.Thread(target=work)
        thread.start()
        assert running.wait(10)
        while running.is_set():
            turns += 1
        thread.join()
        assert turns > 0

    def test_a_waiting_call_gets_its_turn(self, double: CallContext) -> None:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(double.function()(vector(2))))
        with double.lock:
            thread.start()
            thread.join(0.05)
            assert thread.is_alive()
        thread.join(10)
        np.testing.assert_array_equal(answers[0], [2, 4])

    def test_long_work_starts_the_pool(self, build: Build) -> None:
        native.set_num_threads(native.get_num_threads())
        small = build("double", VECTOR, [Output(1, F32, 1)], single=True).function()
        small(vector(3))
        assert native._pool._struct.started == 0
        large = build("double", VECTOR, [Output(1, F32, 1)], single=True, release_work=1)
        np.testing.assert_array_equal(large.function()(vector(3)), [2, 4, 6])
        assert native._pool._struct.started == 1

    def test_an_error_while_the_pool_starts_is_raised(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> None:
            raise OSError("no threads today")

        native.set_num_threads(native.get_num_threads())
        monkeypatch.setattr(native._pool._struct, "start", id(refuse))
        context = build("double", VECTOR, [Output(1, F32, 1)], single=True, release_work=1)
        with pytest.raises(OSError, match="no threads today"):
            context.function()(vector(3))
        np.testing.assert_array_equal(context.function()(vector(3)), [2, 4, 6])
        native.set_num_threads(native.get_num_threads())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_forked_child_can_call(self, double: CallContext) -> None:
        call = double.function()
        holding, finish = threading.Event(), threading.Event()

        def hold() -> None:
            with double.lock:
                holding.set()
                finish.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        assert holding.wait(10)
        child = os.fork()
        if child == 0:
            os._exit(0 if (call(vector(3)) == [2, 4, 6]).all() else 1)
        _, status = os.waitpid(child, 0)
        finish.set()
        holder.join()
        assert os.waitstatus_to_exitcode(status) == 0


class TestLifetime:
    def test_the_builtin_keeps_everything_it_needs(self, build: Build) -> None:
        context = build("double", VECTOR, [Output(1, F32, 1)], single=True)
        alive, call = weakref.ref(context), context.function()
        del context
        gc.collect()
        np.testing.assert_array_equal(call(vector(3)), [2, 4, 6])
        del call
        assert alive() is None

    def test_nothing_leaks(self, build: Build, several: Callable[..., Any]) -> None:
        single = build("double", VECTOR, [Output(1, F32, 1)], single=True).function()
        late = build(
            "positive", VECTOR, [Output(1, F32, 1, first_dim=2, late=True)], arena_dim=1
        ).function()
        fail = build("fail", VECTOR, [Output(1, F32, 1)]).function()
        raising = build("raise", VECTOR, [Output(1, F32, 1)]).function()
        x, table, k = vector(1000), np.ones((4, 3), F32), np.arange(4)
        subclass = x.view(np.memmap)

        def calls() -> None:
            single(x)
            single(subclass)
            single(1.0)
            several(table, k)
            several(table, x)
            late(x)
            fail(x)
            with contextlib.suppress(ValueError):
                raising(x)

        objects = (x, table, k, subclass, F32, I64, np.ndarray, single, several, None, ())
        for _ in range(100):
            calls()
        counts = [sys.getrefcount(item) for item in objects]
        tracemalloc.start()
        try:
            calls()
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(10_000):
                calls()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 20_000
        changes = [sys.getrefcount(i) - n for i, n in zip(objects, counts, strict=True)]
        assert max(map(abs, changes)) < 100, changes


class TestMirrors:
    @pytest.mark.parametrize(
        ("name", "struct"),
        [
            ("Pool", structs.PoolStruct),
            ("Lock", structs.LockStruct),
            ("Context", structs.ContextStruct),
            ("Input", structs.InputStruct),
            ("Output", structs.OutputStruct),
        ],
    )
    def test_structures_have_the_fields_of_the_text(
        self, name: str, struct: type[ctypes.Structure]
    ) -> None:
        found = re.search(rf"^%{name} = type \{{(.*?)\}}$", library.source(), re.M | re.S)
        assert found is not None
        types = re.findall(r"\[\d+ x i\d+\]|ptr|i\d+", re.sub(r";.*", "", found[1]))
        sizes = [
            int(kind.split()[0][1:]) * 8
            if "x" in kind
            else 8
            if kind == "ptr"
            else int(kind[1:]) // 8
            for kind in types
        ]
        assert sizes == [getattr(struct, field[0]).size for field in struct._fields_]

    def test_numpys_functions_are_where_its_header_says(self) -> None:
        header = Path(np.get_include(), "numpy", "__multiarray_api.h").read_text()
        for name, index in (("PyArray_NewFromDescr", 94), ("PyArray_Scalar", 60)):
            found = re.search(rf"#define {name} \\(?:\n.*?)*?PyArray_API\[(\d+)\]", header)
            assert found is not None
            assert int(found[1]) == index

    @pytest.mark.parametrize("futex", [True, False])
    @pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64", "unheard-of"])
    def test_the_text_compiles_for_every_system(
        self, monkeypatch: pytest.MonkeyPatch, futex: bool, machine: str
    ) -> None:
        monkeypatch.setattr(library, "has_futex", lambda: futex)
        monkeypatch.setattr("platform.machine", lambda: machine)
        target = jit.named_target("generic")
        if machine in ("x86_64", "aarch64"):
            triple = f"{machine}-unknown-linux-gnu"
            target = dataclasses.replace(target, triple=triple, cpu="", features="")
        assert jit.compile_object(library.source(), target)


SIMPLE = """
@table = internal constant [2 x double] [double 1.5, double 2.5]
declare double @llvm.fabs.f64(double)
declare double @cos(double)
declare i64 @given(i64)
define double @f(i64 %i) {
  %local = alloca double
  %at = getelementptr double, ptr @table, i64 %i
  %value = load double, ptr %at
  store double %value, ptr %local
  %again = load double, ptr %local
  %cos = call double @cos(double %again)
  ret double %cos
}
define i64 @g(i64 %x) {
  %y = call i64 @given(i64 %x)
  ret i64 %y
}
"""


class TestJit:
    @pytest.mark.parametrize("name", ["host", "generic", "avx2", "avx512", "avx512vnni"])
    def test_compile_load_and_call(self, name: str) -> None:
        target = jit.named_target(name)
        data = jit.compile_object(SIMPLE, target)
        if not target.is_host:
            pytest.skip(f"this machine does not run {name}")
        given = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: x + 1)
        address = ctypes.cast(given, ctypes.c_void_p).value
        assert address is not None
        loaded = jit.load_object(data, {"given": address}, exports=["f"])
        f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(loaded.address("f"))
        g = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("g"))
        assert f(1) == pytest.approx(np.cos(2.5), rel=1e-15)
        assert g(41) == 42

    def test_symbols_that_nobody_defines(self) -> None:
        data = jit.compile_object(SIMPLE, jit.named_target("generic"))
        with pytest.raises(jit.JitError, match="cannot load 'g': it needs given, which nothing"):
            jit.load_object(data, exports=["g"])
        loaded = jit.load_object(data, {"given": 1})
        with pytest.raises(jit.JitError, match="cannot load 'h': the object does not define it"):
            loaded.address("h")

    def test_text_and_objects_that_llvm_refuses(self) -> None:
        target = jit.named_target("generic")
        with pytest.raises(jit.JitError, match="expected"):
            jit.compile_object("define nonsense", target)
        with pytest.raises(jit.JitError, match="use of undefined value '%x'"):
            jit.compile_object("define i64 @f() {\n  ret i64 %x\n}", target)
        with pytest.raises(jit.JitError, match="cannot load the object"):
            jit.load_object(b"not an object")

    def test_other_architectures(self) -> None:
        here = jit.named_target("generic")
        arch = "x86_64" if here.triple.startswith("aarch64") else "aarch64"
        there = dataclasses.replace(here, triple=f"{arch}-unknown-linux-gnu", cpu="", is_host=False)
        assert jit.compile_object(SIMPLE, there)[:4] == b"\x7fELF"
        assembly = 'define void @f() {\n  call void asm sideeffect "nop", ""()\n  ret void\n}'
        with pytest.raises(jit.JitError, match="inline assembly"):
            jit.compile_object(assembly, there)

    def test_local_variables_become_registers(self) -> None:
        text = jit.emit_assembly(SIMPLE, jit.named_target("generic"))
        assert "f:" in text
        assert "rsp)" not in text
        assert "[sp" not in text

    def test_compiling_in_threads(self) -> None:
        target = jit.named_target("generic")
        expected = jit.compile_object(SIMPLE, target)
        objects: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: objects.append(jit.compile_object(SIMPLE, target)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert objects == [expected] * 4

    def test_the_variable_overrides_the_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GRAPHC_TARGET", raising=False)
        assert jit.host_target().name == "host"
        assert jit.host_target().is_host
        monkeypatch.setenv("GRAPHC_TARGET", "generic")
        assert jit.host_target() == jit.named_target("generic")
        monkeypatch.setenv("GRAPHC_TARGET", "abacus")
        with pytest.raises(ValueError, match="unknown CPU target 'abacus': expected one of host"):
            jit.host_target()

    def test_facts_of_the_named_targets(self) -> None:
        avx2, avx512 = jit.named_target("avx2"), jit.named_target("avx512")
        assert (avx2.lanes(4), avx2.lanes(8), avx2.has_fma, avx2.has_f16c) == (8, 4, True, True)
        assert (avx512.lanes(1), avx512.has_avx512, avx512.has_vnni) == (64, True, False)
        assert jit.named_target("avx512vnni").has_vnni
        assert jit.named_target("generic").lanes(4) == 4
        texts = {jit.named_target(n).description for n in ("generic", "avx2", "avx512")}
        assert len(texts) == 3
