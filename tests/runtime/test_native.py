"""The call from Python, with plans and runs written by hand."""

import array
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.runtime import native
from graphc.runtime.native import CallContext, Failure, FailureCode, Input, Output

F32, F64, I64, U8, BOOL = (np.dtype(name) for name in ("f4", "f8", "i8", "u1", "?"))
AT = native.context_offsets()

def vector(size: int) -> np.ndarray:
    return np.arange(1, size + 1, dtype=F32)
Build = Callable[..., CallContext]
VECTOR = [Input(0, F32, (-1,))]


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
