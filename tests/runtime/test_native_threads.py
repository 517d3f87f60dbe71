"""The call from Python: threads, lifetimes, and structures that agree with the native code."""

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
from graphc.runtime.native import CallContext, Input, Output

F32, F64, I64, U8, BOOL = (np.dtype(name) for name in ("f4", "f8", "i8", "u1", "?"))
AT = native.context_offsets()

def vector(size: int) -> np.ndarray:
    return np.arange(1, size + 1, dtype=F32)
Build = Callable[..., CallContext]
VECTOR = [Input(0, F32, (-1,))]


def misaligned(size: int) -> np.ndarray:
    return np.zeros(4 * size + 1, U8)[1:].view(F32)


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
